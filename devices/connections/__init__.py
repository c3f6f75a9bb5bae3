"""The clients that a connection can be made by; each translates its library's words and errors into ours."""

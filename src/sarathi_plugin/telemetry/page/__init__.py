"""The live page: sign-in, routes and static files, on the API server itself; and ``sarathi top``."""

//! Credentials: docker-style auth files and `WWW-Authenticate` challenges, read strictly.

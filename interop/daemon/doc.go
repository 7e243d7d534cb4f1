// Package daemon runs the real program between real clients and real servers:
// psql and PostgreSQL, redis-cli and Redis, curl and OpenSSL, also through each protocol's
// emulated far end. Its tests have the build tag interop.
package daemon

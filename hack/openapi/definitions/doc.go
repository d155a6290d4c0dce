// Package definitions is where `make generate` has openapi-gen put the schemas
// of the Go types, on their way to package api/openapi. Nothing of that is
// committed.
package definitions

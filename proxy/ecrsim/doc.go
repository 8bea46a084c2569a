// Package ecrsim is a double of a private Amazon ECR registry, for tests and for the demo. It is not Amazon ECR, and what
// passes against it may fail there.
package ecrsim

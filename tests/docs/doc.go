// Package docs tests that what the documents name is there: tests, files,
// sections. It holds tests only.
package docs

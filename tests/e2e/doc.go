// Package e2e tests what users get: the image and the chart on a real cluster
// with pods, and subscribers that behave like Falco's plugin. It needs root,
// and the image's archive in METAWIRE_IMAGE (default: where make image writes it).
package e2e

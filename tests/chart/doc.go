// Package chart tests the Helm chart as users install it: what it renders and
// refuses, what its RBAC grants, and that real API machinery takes every
// object. It holds tests only.
package chart

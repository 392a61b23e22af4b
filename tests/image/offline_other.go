//go:build !linux

package main

import (
	"context"
	"errors"
)

func (build) offline(context.Context, string) error {
	return errors.New("building offline needs Linux")
}

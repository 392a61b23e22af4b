package main

import (
	"strings"
	"testing"
)

func TestCheckRefusesANegativeWait(t *testing.T) {
	err := <-start(t, "check", "--wait", "-3s", "--kubeconfig", installed().serve(t)).done
	if err == nil || !strings.Contains(err.Error(), "--wait is -3s: allowed are 0") {
		t.Errorf("error %v", err)
	}
}

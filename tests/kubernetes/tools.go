//go:build tools

// Package kubernetes names the programs, so that go.mod and go.sum cover what they import.
package kubernetes

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kubectl"
)

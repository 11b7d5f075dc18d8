//go:build !keyless

package main

import (
	"github.com/waybill-ml/waybill/oci/verify"
)

// certificates is nil: this build checks pinned keys only. The build tag keyless adds the other kind, and megabytes.
func certificates() verify.Certificates { return nil }

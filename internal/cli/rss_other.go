//go:build !unix && !windows

package cli

// peakRSS is unknown here.
func peakRSS() int64 { return 0 }

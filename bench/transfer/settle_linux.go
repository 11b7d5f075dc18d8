package main

import "golang.org/x/sys/unix"

// settle waits until what earlier steps wrote is on the disk.
func settle() { unix.Sync() }

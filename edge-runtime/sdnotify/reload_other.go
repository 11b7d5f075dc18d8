//go:build !linux

package sdnotify

// Reload are the lines that begin a reload; Ready ends it.
func Reload() []string { return []string{Reloading} }

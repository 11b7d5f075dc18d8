//go:build unix

// Package owner tells whose a file is.
package owner

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// Of is the user id of a file's owner.
func Of(path string) (int, bool) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Uid), true
}

// Name is the name of the owner of path or of the nearest folder above that can be looked at; "" when it is this user.
func Name(path string) string {
	for ; ; path = filepath.Dir(path) {
		uid, ok := Of(path)
		if !ok && path != filepath.Dir(path) {
			continue
		}
		if !ok || uid == os.Getuid() {
			return ""
		}
		if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
			return u.Username
		}
		return "#" + strconv.Itoa(uid)
	}
}

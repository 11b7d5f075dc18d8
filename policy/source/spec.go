package source

import (
	"fmt"
	"strings"

	"github.com/waybill-ml/waybill/oci/registry"
)

// Builtin names the rules inside the binary.
const Builtin = "builtin"

// Kind tells where a source points.
type Kind int

// Kinds of source.
const (
	KindBuiltin Kind = iota
	KindPath         // a folder, or a tar
	KindRef          // an artifact: in a registry, a layout or the local store
)

// Spec is a parsed source.
type Spec struct {
	Kind Kind
	Path string // with slashes, as written
	Ref  registry.Ref
}

// Parse reads a source as environments.yaml has it. What a source is depends on its text alone, never on what lies on a disk:
// "builtin"; layout:PATH; a reference, which has a tag or a digest (name:1.0, host/repo@sha256:...); everything else is a path. A
// path that looks like a reference is written with ./ before it.
func Parse(s string) (Spec, error) {
	switch {
	case s == "" || s == Builtin:
		return Spec{Kind: KindBuiltin}, nil
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return Spec{}, fmt.Errorf("%q holds a control character", s)
	case isPath(s):
		return Spec{Kind: KindPath, Path: s}, nil
	}
	r, err := registry.ParseRef(s)
	if err != nil {
		return Spec{}, fmt.Errorf("%w (a folder or file is written ./%s)", err, s)
	}
	return Spec{Kind: KindRef, Ref: r}, nil
}

func isPath(s string) bool {
	if strings.HasPrefix(s, "layout:") {
		return false
	}
	if strings.HasPrefix(s, "./") || strings.HasPrefix(s, "../") || strings.HasPrefix(s, "/") || strings.HasPrefix(s, `\`) || strings.HasPrefix(s, `.\`) || strings.HasPrefix(s, `..\`) {
		return true
	}
	if len(s) > 2 && s[1] == ':' && (s[2] == '\\' || s[2] == '/') {
		return true // C:\policies
	}
	if strings.Contains(s, "@sha256:") {
		return false
	}
	c := strings.LastIndex(s, ":")
	return c < 0 || strings.ContainsAny(s[c:], `/\`) // no tag
}

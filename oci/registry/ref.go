package registry

import (
	"net"
	"regexp"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Kind tells where a reference points.
type Kind int

// Kinds of reference.
const (
	KindLocal  Kind = iota // name[:tag|@digest] in the local store
	KindRemote             // host[:port]/repo[:tag|@digest] in a registry
	KindLayout             // layout:PATH[:tag|@digest], an OCI layout on disk
)

// DefaultTag is used where a reference has neither tag nor digest.
const DefaultTag = "latest"

// Ref is a parsed reference.
type Ref struct {
	Kind   Kind
	Host   string          // of a registry, with port
	Repo   string          // repository in the registry, or name in the local store
	Path   string          // of a layout
	Tag    string          // "" when not given
	Digest artifact.Digest // "" when not given; wins over Tag
}

var (
	repoRE = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagRE  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	hostRE = regexp.MustCompile(`^(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?$`)
)

// ValidRepo reports whether s is a repository name by the OCI distribution spec.
func ValidRepo(s string) bool { return len(s) <= 255 && repoRE.MatchString(s) }

// ValidTag reports whether s is a tag by the OCI distribution spec.
func ValidTag(s string) bool { return tagRE.MatchString(s) }

// ParseRef reads a reference. There is no default host: a name whose first part has no dot, no port and is not
// "localhost" is in the local store.
func ParseRef(s string) (Ref, error) {
	bad := func(why string) (Ref, error) {
		return Ref{}, diag.New(diag.Usage, "reference %q: %s", s, why).
			Hint("a reference is name:tag (local store), host/repo:tag or host/repo@sha256:... (registry), or layout:PATH:tag")
	}
	var r Ref
	rest := s
	if at := strings.LastIndex(rest, "@"); at >= 0 && strings.HasPrefix(rest[at+1:], "sha256:") {
		d, err := artifact.ParseDigest(rest[at+1:])
		if err != nil {
			return bad(err.Error())
		}
		r.Digest, rest = d, rest[:at]
	}
	path, isLayout := strings.CutPrefix(rest, "layout:")
	if isLayout {
		r.Kind, rest = KindLayout, path
	}
	// A colon belongs to a tag when no separator follows it: "host:5000/repo" and "C:\dir" have none.
	if c := strings.LastIndex(rest, ":"); c >= 0 && !strings.ContainsAny(rest[c+1:], `/\`) {
		if r.Tag = rest[c+1:]; !ValidTag(r.Tag) {
			return bad("the tag has characters that tags cannot have")
		}
		rest = rest[:c]
	}
	if isLayout {
		if rest == "" {
			return bad("layout: needs a path")
		}
		r.Path = rest
		return r, nil
	}
	first, after, slash := strings.Cut(rest, "/")
	if slash && (first == "localhost" || strings.ContainsAny(first, ".:")) {
		r.Kind, r.Host, rest = KindRemote, first, after
		if !hostRE.MatchString(first) {
			return bad("the host is not a host name or address with an optional port")
		}
	}
	r.Repo = rest
	switch {
	case rest == "":
		return bad("the name is missing")
	case !ValidRepo(rest):
		return bad("names are lower-case letters, digits and single separators (. _ -)")
	}
	return r, nil
}

// String writes the reference so that ParseRef reads it back.
func (r Ref) String() string {
	s := r.Name()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}

// Name writes the reference without tag and digest.
func (r Ref) Name() string {
	switch r.Kind {
	case KindRemote:
		return r.Host + "/" + r.Repo
	case KindLayout:
		return "layout:" + r.Path
	}
	return r.Repo
}

// Target is what Repository.Resolve takes: the digest, or the tag, or DefaultTag.
func (r Ref) Target() string {
	switch {
	case r.Digest != "":
		return string(r.Digest)
	case r.Tag != "":
		return r.Tag
	}
	return DefaultTag
}

// WithDigest returns the same place by digest alone.
func (r Ref) WithDigest(d artifact.Digest) Ref {
	r.Tag, r.Digest = "", d
	return r
}

// Loopback reports whether host (with or without port) can only be this machine.
func Loopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

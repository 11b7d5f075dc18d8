package lock

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"
)

// Kind is what a lock rests on.
type Kind string

// Kinds.
const (
	KindFile     Kind = "file"     // one machine, or a file system that its machines lock together
	KindRegistry Kind = "registry" // a registry that compares and moves a tag in one step
	KindS3       Kind = "s3"       // an S3 bucket with conditional writes
	KindGit      Kind = "git"      // a ref in a Git repository
)

// URI is the place of an environment's or a machine's locks; each channel of each repository has one there, by its Name.
type URI struct {
	Kind Kind
	Raw  string

	Path     string // file: the folder, slash-separated
	Registry string // registry: host/repository; "": the one that is published to
	Bucket   string // s3
	Prefix   string // s3: of the key; git: of the ref
	Endpoint string // s3: other than Amazon's
	Region   string // s3
	Remote   string // git: what `git push` is told
}

var (
	bucketRE  = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	refRE     = regexp.MustCompile(`^refs(/[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*)+$`)
	keyRE     = regexp.MustCompile(`^[A-Za-z0-9._/-]*$`)
	registRE  = regexp.MustCompile(`^[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$`)
	drivePath = regexp.MustCompile(`^/?[A-Za-z]:`)
)

// Parse reads the place of locks:
//
//	file:/var/lock/waybill
//	registry:                                    the registry that is published to
//	registry://reg.example/ops/locks
//	s3://bucket/prefix?region=eu-central-1       endpoint=https://s3.example for a service of your own
//	git+ssh://git@git.example/ops/locks.git#refs/waybill/locks      also git+https: and git+file:
func Parse(s string) (URI, error) {
	u := URI{Raw: s}
	fail := func(format string, args ...any) (URI, error) {
		return URI{}, fmt.Errorf("lock %q: "+format, append([]any{s}, args...)...)
	}
	switch scheme, rest, _ := strings.Cut(s, ":"); scheme {
	case "file":
		u.Kind = KindFile
		u.Path = strings.TrimPrefix(rest, "//")
		if drivePath.MatchString(u.Path) {
			u.Path = strings.TrimPrefix(u.Path, "/")
		} else if !strings.HasPrefix(u.Path, "/") {
			return fail("not the absolute path of a folder")
		}
	case "registry":
		u.Kind = KindRegistry
		if u.Registry = strings.TrimPrefix(rest, "//"); rest != "" && (u.Registry == rest || !registRE.MatchString(u.Registry)) {
			return fail("not registry: or registry://host/repository")
		}
	case "s3":
		u.Kind = KindS3
		p, err := url.Parse(s)
		if err != nil || p.User != nil || p.Fragment != "" || p.Opaque != "" || !bucketRE.MatchString(p.Host) {
			return fail("not s3://bucket/prefix")
		}
		u.Bucket, u.Prefix = p.Host, strings.Trim(p.Path, "/")
		if !keyRE.MatchString(u.Prefix) {
			return fail("the prefix has other characters than letters, digits and ._/-")
		}
		q, err := url.ParseQuery(p.RawQuery)
		if err != nil {
			return fail("%w", err)
		}
		for k, v := range q {
			switch {
			case len(v) != 1 || v[0] == "":
				return fail("%s is given without a value, or twice", k)
			case k == "region":
				u.Region = v[0]
			case k == "endpoint":
				e, err := url.Parse(v[0])
				if err != nil || e.Scheme != "https" && e.Scheme != "http" || e.Host == "" || e.User != nil || e.RawQuery != "" {
					return fail("endpoint %q is no http or https address", v[0])
				}
				u.Endpoint = v[0]
			default:
				return fail("unknown parameter %q; it has region and endpoint", k)
			}
		}
	case "git+https", "git+ssh", "git+file":
		u.Kind = KindGit
		remote, ref, ok := strings.Cut(strings.TrimPrefix(s, "git+"), "#")
		p, err := url.Parse(remote)
		if err != nil || p.Scheme != "file" && p.Host == "" || strings.HasPrefix(p.Host, "-") || p.Path == "" || strings.HasPrefix(p.Path, "/-") {
			return fail("not the address of a Git repository")
		}
		if _, secret := p.User.Password(); secret {
			return fail("a password does not belong there; use Git's credential helpers")
		}
		if !ok || !refRE.MatchString(ref) || strings.HasSuffix(ref, ".lock") || strings.HasPrefix(ref, "refs/heads/") || strings.HasPrefix(ref, "refs/tags/") {
			return fail("the fragment is not the prefix of refs for locks, such as #refs/waybill/locks")
		}
		u.Remote, u.Prefix = remote, ref
	default:
		return fail("not file:, registry:, s3: or git+ssh:, git+https:, git+file:")
	}
	return u, nil
}

// Name is the name of the lock of a channel in a repository, which is given without its host, so that a registry with two
// names has one lock. It is a valid file name, key, tag and part of a ref.
func Name(repo, channel string) string {
	h := sha256.Sum256([]byte(repo + "\x00" + channel))
	readable := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(path.Base(repo)), "-")
	readable = strings.Trim(readable[max(0, len(readable)-24):], "-")
	return strings.TrimPrefix(readable+"-", "-") + channel + "-" + hex.EncodeToString(h[:6])
}

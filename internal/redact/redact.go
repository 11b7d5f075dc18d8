// Package redact takes secrets out of text that is about to be written where others read it: logs, journals, reports. It
// is the second line: code that holds a secret does not put it into errors in the first place.
package redact

import (
	"regexp"
	"slices"
	"strings"
)

// Mask stands where a secret stood.
const Mask = "***"

// Redactor knows the forms in which secrets travel and, besides, values that this process holds itself. The nil Redactor
// knows the forms only. It is immutable and safe for concurrent use.
type Redactor struct {
	values *strings.Replacer
}

// shortest is the length from which a value is masked: shorter ones would mask ordinary text.
const shortest = 6

// New makes a Redactor that also masks values wherever they appear.
func New(values ...string) *Redactor {
	values = slices.Clone(values)
	slices.SortFunc(values, func(a, b string) int { return len(b) - len(a) }) // the longest first: one may hold another
	var pairs []string
	for _, v := range values {
		if len(v) >= shortest {
			pairs = append(pairs, v, Mask)
		}
	}
	if pairs == nil {
		return &Redactor{}
	}
	return &Redactor{values: strings.NewReplacer(pairs...)}
}

type form struct {
	re   *regexp.Regexp
	with string
}

// forms are what secrets look like, with what is kept of each.
var forms = []form{
	{regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|$)`), Mask},
	{regexp.MustCompile(`(?i)([a-z][a-z0-9+.-]*://)[^/\s?#"'<>]+@`), "${1}" + Mask + "@"},
	{regexp.MustCompile(`(?i)\b((?:proxy-)?authorization["']?\s*[:=]\s*["']?)(?:[a-z]+\s+)?[^\s"',]+`), "${1}" + Mask},
	{regexp.MustCompile(`\b((?i:bearer|basic)\s+)[A-Za-z0-9._~+/-]{16,}=*`), "${1}" + Mask},
	{regexp.MustCompile(`(?i)\b(access_token|refresh_token|id_token|identity_?token|token|pass(?:word|wd|phrase)|pin|pin-value|secret|client_secret|api[_-]?key|sig|signature|x-amz-[a-z-]+|x-goog-[a-z-]+)(["']?\s*[=:]\s*["']?)([^\s&"',;]+)`), "${1}${2}" + Mask},
}

// Text returns s without the secrets in it.
func (r *Redactor) Text(s string) string {
	if r != nil && r.values != nil {
		s = r.values.Replace(s)
	}
	for _, f := range forms {
		s = f.re.ReplaceAllString(s, f.with)
	}
	return s
}

package lineage

import (
	"regexp"
	"strings"
)

// Masked stands where a source's text had what looks like a secret.
const Masked = "(masked)"

// People log whole environments and command lines as parameters, and provenance is public where the artifact is. Values are
// masked by what names them and by the forms that issuers of credentials give to theirs; one time too many does no harm.
var (
	secretName = `[\w.-]*(?:passwo?r?d|passphrase|passwd|secret|credential|api[_.-]?key|access[_.-]?key|private[_.-]?key|auth[_.-]?token|access[_.-]?token)[\w.-]*`
	secretRE   = regexp.MustCompile(`(?i)^` + secretName + `$`)
	// NAME=VALUE, "NAME": "VALUE" and --NAME VALUE, anywhere in a text; a quoted value may have spaces.
	namedRE = regexp.MustCompile(`(?i)((?:\b` + secretName + `["']?\s*[=:]\s*)|(?:--?` + secretName + `\s+))("[^"]*"|'[^']*'|[^\s"',;}]+)`)
	// "token" alone names words of a vocabulary too: only a long value without brackets is taken for a secret.
	tokenRE = regexp.MustCompile(`(?i)^(?:[\w.-]*[_.-])?(?:token|bearer)$`)
	longRE  = regexp.MustCompile(`^[\w.~+/=-]{16,}$`)
	userRE  = regexp.MustCompile(`(\b[A-Za-z][A-Za-z0-9+.-]*://)[^/\s@]*:[^/\s@]*@`)
	// The forms of issuers: AWS, GitHub, GitLab, Hugging Face, Slack, Google, keys that begin with sk-, JSON web tokens, PEM.
	formRE = regexp.MustCompile(`\b(?:A(?:KIA|SIA)[0-9A-Z]{16}|gh[opsur]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}|hf_[A-Za-z0-9]{30,}|xox[abeprs]-[\w-]{10,}|` +
		`AIza[\w-]{35}|sk-[\w-]{20,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]*)|(?s:-----BEGIN [A-Z ]*PRIVATE KEY-----.*)`)
)

// Mask gives value without what looks like a secret in it; name is what the source calls it.
func Mask(name, value string) string {
	switch {
	case value == "":
		return value
	case secretRE.MatchString(name), tokenRE.MatchString(name) && longRE.MatchString(strings.TrimSpace(value)):
		return Masked
	}
	value = formRE.ReplaceAllString(value, Masked)
	value = userRE.ReplaceAllString(value, "${1}"+Masked+"@")
	return namedRE.ReplaceAllString(value, "${1}"+Masked)
}

package fleet

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/waybill-ml/waybill/internal/diag"
)

// checkText refuses what does not belong into a name that tables, files and messages show.
func checkText(what, s string) error {
	switch {
	case strings.TrimSpace(s) == "":
		return diag.Errorf("%s is missing", what)
	case strings.TrimSpace(s) != s:
		return diag.Errorf("%s %q has spaces around it", what, s)
	case len(s) > maxText:
		return diag.Errorf("%s of %d bytes, the limit is %d", what, len(s), maxText)
	case !utf8.ValidString(s):
		return diag.Errorf("%s %q is not UTF-8", what, s)
	}
	for _, c := range s {
		if !unicode.IsPrint(c) {
			return diag.Errorf("%s %q has a character that cannot be shown", what, s)
		}
	}
	return nil
}

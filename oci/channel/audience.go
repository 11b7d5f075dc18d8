package channel

import (
	"regexp"

	"github.com/waybill-ml/waybill/internal/diag"
)

var (
	classRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	labelRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$`)
)

// ValidClass checks the name of a device class as a person gives it to a device or to the audience of a record: both must spell it
// alike. Records and requests that were signed with other names before are read all the same.
func ValidClass(s string) error {
	if !classRE.MatchString(s) {
		return diag.Errorf("class %q does not match %s", s, classRE)
	}
	return nil
}

// ValidLabel checks the name of a label, likewise.
func ValidLabel(name string) error {
	if !labelRE.MatchString(name) {
		return diag.Errorf("label name %q does not match %s", name, labelRE)
	}
	return nil
}

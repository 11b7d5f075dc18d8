package evidence

import "strings"

// Names of the levels that a PASSED verdict carries beside SLSA's own, for readers that know SLSA only. A name is made upper
// case and everything but letters and digits becomes "_": the extension, which is compared too, has it exactly.

// EnvironmentLevel is the level of a verdict for an environment.
func EnvironmentLevel(name string) string { return "WAYBILL_ENV_" + level(name) }

// ClassLevel is the level of a verdict for a device class.
func ClassLevel(name string) string { return "WAYBILL_CLASS_" + level(name) }

func level(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= '0' && r <= '9' || r >= 'A' && r <= 'Z':
			return r
		}
		return '_'
	}, s)
}

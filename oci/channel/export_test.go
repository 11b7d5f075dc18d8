package channel

import "time"

// FollowsWithout is Follows with one check left out.
func FollowsWithout(check string, prev, next *Head, byRefresher bool) (Step, error) {
	return rules{skip: check}.follows(prev, next, byRefresher)
}

// AdmitWithout is Record.Admit with one check left out.
func AdmitWithout(check string, r *Record, now time.Time, d Device) error {
	return rules{skip: check}.admit(r, now, d)
}

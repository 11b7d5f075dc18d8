package enroll

import (
	"cmp"
	"maps"
	"slices"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/fleet"
)

// checkNames looks at the class and the labels that are given anew, before anything is written: as a channel's audience names them.
// What a device said of itself before stays as it is.
func (in *enrolment) checkNames() error {
	given := map[string]string{}
	class := in.class
	if in.given != nil {
		class = cmp.Or(class, in.given.Class)
		maps.Copy(given, in.given.Labels)
	}
	maps.Copy(given, in.labels)
	if class != "" {
		if err := channel.ValidClass(class); err != nil {
			return diag.Wrap(diag.Usage, err, "enroll").Hint("waybill-edge enroll --out DIR --class edge-s")
		}
	}
	for _, k := range slices.Sorted(maps.Keys(given)) {
		v := given[k]
		if v == "" {
			continue // removes the label, whatever its name
		}
		err := channel.ValidLabel(k)
		if err == nil {
			err = fleet.CheckLabels(map[string]string{k: v})
		}
		if err != nil {
			return diag.Wrap(diag.Usage, err, "enroll").Hint("waybill-edge enroll --out DIR --label site=north")
		}
	}
	return nil
}

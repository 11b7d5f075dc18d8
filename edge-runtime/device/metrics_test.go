//go:build unix

package device

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/monitor"
	"github.com/waybill-ml/waybill/internal/edgetest"
)

// A thousand updates leave no more series behind than one, and what a model is called cannot break the format.
func TestMetricsAreBounded(t *testing.T) {
	m := monitor.New()
	st := edgetest.TwoChannels()
	m.Collect(func(e *monitor.Exposition) {
		collectStatus(e, st, func(string) agent.Counts { return agent.Counts{} }, st.At)
	})
	lines := func() (string, int) {
		var b bytes.Buffer
		m.Write(&b)
		return b.String(), strings.Count(b.String(), "\n")
	}
	use := func(n int) {
		digest := fmt.Sprintf("sha256:%064x", n)
		st.Channels[0].Current = edgetest.Slot(fmt.Sprint("1.", n), 'a', st.At)
		m.Model("churn", digest).Answered(200)
		m.Model("churn", digest).Inference.Observe(time.Millisecond)
		m.Active("churn", digest, true)
		m.Swap("churn")
	}
	for n := range 20 {
		use(n)
	}
	_, first := lines()
	for n := range 1000 {
		use(20 + n)
	}
	_, last := lines()
	if last > first {
		t.Errorf("%d lines after 20 updates, %d after 1,020", first, last)
	}
	t.Logf("%d lines after 20 updates, %d after 1,020", first, last)
	st.Channels[0].Current.Version = "1\"} evil{x=\"\\\n" + strings.Repeat("9", 1000)
	st.Channels[1].Model = "a\nwaybill_up 1\n"
	text, _ := lines()
	if strings.Contains(text, "\nwaybill_up 1") {
		t.Error("a model's name became a line")
	}
	edgetest.CheckMetrics(t, text)
}

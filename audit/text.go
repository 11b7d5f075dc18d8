package audit

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/waybill-ml/waybill/internal/ui"
)

// Text lays the report out for a terminal of 100 columns. paint colours a word by its status and may be nil; it must not
// change the width that a terminal shows.
func (r *Report) Text(paint func(Status, string) string) string {
	if paint == nil {
		paint = func(_ Status, s string) string { return s }
	}
	const label, text, state = 8, 58, 12
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s  %s\n", r.Name, r.Version, r.Digest)
	fmt.Fprintf(&b, "verified against trust document version %d, %s\n", r.Trust.Version, r.At.Format("2006-01-02 15:04 UTC"))
	for _, s := range r.Sections {
		if len(s.Lines) == 0 {
			continue
		}
		b.WriteString("\n")
		for i, l := range s.Lines {
			head := ""
			if i == 0 {
				head = s.Name
			}
			t := l.Text
			if l.Note != "" {
				t += " (" + l.Note + ")"
			}
			rows := max(1, len(l.Proof))
			lines := ui.Fold(t, text)
			rows = max(rows, len(lines))
			for j := range rows {
				var row strings.Builder
				fmt.Fprintf(&row, "%-*s ", label, head)
				head = ""
				cell := ""
				if j < len(lines) {
					cell = lines[j]
				}
				row.WriteString(cell + strings.Repeat(" ", text-utf8.RuneCountInString(cell)) + " ")
				word := ""
				if j == 0 {
					word = string(l.Status)
				}
				row.WriteString(paint(l.Status, word) + strings.Repeat(" ", state-len(word)) + " ")
				if j < len(l.Proof) {
					row.WriteString("sha256:" + l.Proof[j].Short())
				}
				b.WriteString(strings.TrimRight(row.String(), " ") + "\n")
			}
		}
	}
	fmt.Fprintf(&b, "\n%d proven, %d claimed, %d missing, %d contradicted\n", r.Counts[Proven], r.Counts[Claimed], r.Counts[Missing], r.Counts[Contradicted])
	return b.String()
}

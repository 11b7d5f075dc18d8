package lint

import (
	"regexp"
	"strings"
)

// ignore is the comment that suppresses findings of one code: on the line of the finding, or in the comment above it.
var ignore = regexp.MustCompile(`#\s*waybill:ignore\s+([A-Z]{2}-[0-9]{3})\b[ \t]*(.*)$`)

type suppression struct {
	file, code, reason string
	line               int // of the comment
	covers             int // the first line of code at or below it
	used               bool
}

// suppress marks what comments cover. A comment without a reason, and one that covers nothing, is a finding.
func (l *linter) suppress() {
	var all []*suppression
	for _, n := range l.names() {
		lines := strings.Split(string(l.files[n]), "\n")
		for i, text := range lines {
			m := ignore.FindStringSubmatch(strings.TrimRight(text, "\r"))
			if m == nil {
				continue
			}
			s := &suppression{file: n, code: m[1], reason: strings.TrimSpace(m[2]), line: i + 1, covers: i + 1}
			for s.covers <= len(lines) {
				t := strings.TrimSpace(lines[s.covers-1])
				if t != "" && !strings.HasPrefix(t, "#") {
					break
				}
				s.covers++
			}
			all = append(all, s)
		}
	}
	for i := range l.findings {
		f := &l.findings[i]
		for _, s := range all {
			if s.file == f.File && s.code == f.Code && (s.covers == f.Line || s.line == f.Line) && s.reason != "" {
				f.Suppressed, f.Reason, s.used = true, s.reason, true
			}
		}
	}
	for _, s := range all {
		switch {
		case s.reason == "":
			l.add(Finding{Code: "QA-010", File: s.file, Line: s.line, Column: 1, Missing: s.code, Message: "waybill:ignore " + s.code + " gives no reason; nothing is suppressed"})
		case !s.used:
			l.add(Finding{Code: "QA-010", File: s.file, Line: s.line, Column: 1, Missing: s.code, Message: "waybill:ignore " + s.code + " suppresses nothing"})
		}
	}
}

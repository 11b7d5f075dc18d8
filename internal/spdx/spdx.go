// Package spdx checks license expressions (SPDX specification, annex "SPDX license expressions") against the SPDX
// license list, whose short identifiers stand in licenses.txt and exceptions.txt. It is a leaf.
package spdx

import (
	_ "embed"
	"fmt"
	"regexp"
	"strings"
)

//go:embed licenses.txt
var licenses string

//go:embed exceptions.txt
var exceptions string

var refRE = regexp.MustCompile(`^(DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-[A-Za-z0-9.-]+$`)

// Licenses returns the identifiers of the list, sorted without regard to case.
func Licenses() []string { return strings.Fields(licenses) }

// Canonical checks an expression and returns it with the list's spelling of each identifier and single spaces:
// identifiers compare without regard to case, operators are upper case. Each unknown identifier is an *UnknownError.
func Canonical(expr string) (string, error) {
	p := &parser{words: words(expr)}
	if len(p.words) == 0 {
		return "", fmt.Errorf("the license expression is empty")
	}
	out, err := p.or(0)
	if err == nil && p.pos < len(p.words) {
		err = fmt.Errorf("license expression %q: unexpected %q", expr, p.words[p.pos])
	}
	return out, err
}

// UnknownError names an identifier that is not in the list.
type UnknownError struct{ ID string }

func (e *UnknownError) Error() string {
	return fmt.Sprintf("%q is not in the SPDX license list (a license of your own is LicenseRef-name)", e.ID)
}

func words(s string) []string {
	return strings.Fields(strings.NewReplacer("(", " ( ", ")", " ) ").Replace(s))
}

type parser struct {
	words []string
	pos   int
}

const maxDepth = 32

func (p *parser) peek() string {
	if p.pos < len(p.words) {
		return p.words[p.pos]
	}
	return ""
}

func (p *parser) or(depth int) (string, error)  { return p.list("OR", depth, p.and) }
func (p *parser) and(depth int) (string, error) { return p.list("AND", depth, p.with) }

func (p *parser) list(op string, depth int, next func(int) (string, error)) (string, error) {
	out, err := next(depth)
	for err == nil && p.peek() == op {
		p.pos++
		var more string
		if more, err = next(depth); err == nil {
			out += " " + op + " " + more
		}
	}
	return out, err
}

func (p *parser) with(depth int) (string, error) {
	if p.peek() == "(" {
		if depth >= maxDepth {
			return "", fmt.Errorf("the license expression is nested too deep")
		}
		p.pos++
		out, err := p.or(depth + 1)
		if err != nil {
			return "", err
		}
		if p.peek() != ")" {
			return "", fmt.Errorf("the license expression misses a closing parenthesis")
		}
		p.pos++
		return "(" + out + ")", nil
	}
	id := p.peek()
	p.pos++
	switch id {
	case "", "AND", "OR", "WITH", ")":
		return "", fmt.Errorf("the license expression misses an identifier before %q", id)
	}
	out := ""
	if refRE.MatchString(id) {
		out = id
	} else {
		bare, plus := strings.CutSuffix(id, "+")
		if out = lookup(licenses, bare); out == "" {
			return "", &UnknownError{ID: id}
		}
		if plus {
			out += "+"
		}
	}
	if p.peek() == "WITH" {
		p.pos++
		x := p.peek()
		p.pos++
		found := lookup(exceptions, x)
		if found == "" {
			return "", &UnknownError{ID: x}
		}
		out += " WITH " + found
	}
	return out, nil
}

func lookup(list, id string) string {
	if id == "" {
		return ""
	}
	for l := range strings.SplitSeq(strings.TrimSpace(list), "\n") {
		if l = strings.TrimSpace(l); strings.EqualFold(l, id) {
			return l
		}
	}
	return ""
}

package ir

import "strconv"

// quoteIdent leaves plain identifiers as they are and quotes everything else like a Go string.
func quoteIdent(s string) string {
	if isIdent(s) {
		return s
	}
	return strconv.Quote(s)
}

func isIdent(s string) bool {
	for i := 0; i < len(s); i++ {
		if !identByte(s[i]) || i == 0 && (s[0] >= '0' && s[0] <= '9' || s[0] == '-') {
			return false
		}
	}
	switch s {
	case "", "_", "graph", "producer", "opset", "const", "param", "result", "region", "state", "from":
		return false // words of the text form
	}
	return true
}

func identByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '/' || c == '-' || c == ':' || c == '~'
}

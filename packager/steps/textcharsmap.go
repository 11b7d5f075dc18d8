package steps

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

var (
	errCharsmap = errors.New("a broken trie")
	errTooMany  = errors.New("more entries than 1048576, or longer ones than 64 bytes")
)

const (
	maxCharsmap = 1 << 20
	maxKey      = 64
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// charsmapKeys walks the double array units (Darts: a unit has the label in its low byte, a leaf flag in bit 8, an offset from bit 10 on, which bit
// 9 scales by 256; a leaf's value is in the unit at the offset) and collects the keys that can be the first hit of a search.
func charsmapKeys(units []uint32, texts string, keys map[string]string) error {
	offset := func(u uint32) uint32 { return u >> 10 << (u & (1 << 9) >> 6) }
	steps := 0
	var walk func(pos uint32, prefix []byte) error
	walk = func(pos uint32, prefix []byte) error {
		if steps++; steps > maxCharsmap || len(prefix) > maxKey {
			return errTooMany
		}
		for c := uint32(1); c < 256; c++ {
			at := pos ^ c
			if at >= uint32(len(units)) {
				continue // a search that came here would leave the array; the check below finds those that can
			}
			u := units[at]
			if u&(1<<31|0xff) != c {
				continue
			}
			key := append(slices.Clip(prefix), byte(c))
			next := at ^ offset(u)
			if u>>8&1 == 1 {
				if next >= uint32(len(units)) {
					return errCharsmap
				}
				v := units[next] & (1<<31 - 1)
				if v > uint32(len(texts)) {
					return fmt.Errorf("%w: the replacement of %q lies outside", errCharsmap, key)
				}
				to, _, _ := strings.Cut(texts[v:], "\x00")
				if !utf8.ValidString(to) || len(to) > maxReplacement {
					return fmt.Errorf("%w: the replacement of %q", errCharsmap, key)
				}
				keys[string(key)] = to
				continue // a longer key is never reached: the first hit counts
			}
			if err := walk(next, key); err != nil {
				return err
			}
		}
		return nil
	}
	return walk(offset(units[0]), nil)
}

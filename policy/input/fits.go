package input

import (
	"fmt"
	"reflect"
	"unicode/utf8"
)

// Limits of the document: schema.json has them as maxLength and maxItems, so that evaluation is bounded.
const (
	MaxText  = 4096  // runes of one string
	MaxItems = 16384 // elements of one list
)

// Fits tells whether every string and list in vs is within the limits of the document. Producers ask before they believe a
// statement: one with more in it fails as a whole, and nothing is cut.
func Fits(vs ...any) error {
	for _, v := range vs {
		if err := fits(reflect.ValueOf(v)); err != nil {
			return err
		}
	}
	return nil
}

func fits(v reflect.Value) error {
	switch v.Kind() {
	case reflect.String:
		if len(v.String()) > MaxText && utf8.RuneCountInString(v.String()) > MaxText {
			return fmt.Errorf("%.40q... is longer than the %d characters of a fact", v.String(), MaxText)
		}
	case reflect.Slice:
		if v.Len() > MaxItems {
			return fmt.Errorf("a list of %d is longer than the %d that a fact may have", v.Len(), MaxItems)
		}
		for i := range v.Len() {
			if err := fits(v.Index(i)); err != nil {
				return err
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if err := fits(v.Field(i)); err != nil {
				return err
			}
		}
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return fits(v.Elem())
		}
	}
	return nil
}

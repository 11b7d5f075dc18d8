package rego

// Without leaves a safety check out.
func Without(check string) Option {
	return func(o *options) { o.without = map[string]bool{check: true} }
}

package report

// Settled counts the failed attempts of a channel at a sink.
func (s *Spool) Settled(sink, channel string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.sinks {
		if e := q.waiting[channel]; q.sink.ID() == sink && e != nil {
			return e.failures
		}
	}
	return 0
}

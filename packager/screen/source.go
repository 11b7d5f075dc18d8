package screen

import "io"

// source is content that is read forward, or skipped: head, and more behind it.
type source struct {
	head []byte
	more io.Reader
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	if len(s.head) == 0 {
		return s.more.Read(p)
	}
	n := copy(p, s.head)
	s.head = s.head[n:]
	return n, nil
}

// skip goes over n bytes, and tells whether there are so many.
func (s *source) skip(n int64) bool {
	h := min(n, int64(len(s.head)))
	s.head = s.head[h:]
	if n -= h; n == 0 {
		return true
	}
	if r, ok := s.more.(*rest); ok {
		return r.skip(n)
	}
	d, err := io.CopyN(io.Discard, s.more, n)
	return err == nil && d == n
}

// rest is a file from some place on. Of all of it at most left bytes are read.
type rest struct {
	r        io.ReaderAt
	at, size int64
	left     int64
}

// Read implements io.Reader.
func (r *rest) Read(p []byte) (int, error) {
	n := min(int64(len(p)), r.size-r.at, r.left)
	if n <= 0 {
		return 0, io.EOF
	}
	d, err := r.r.ReadAt(p[:n], r.at)
	r.at, r.left = r.at+int64(d), r.left-int64(d)
	if d > 0 {
		err = nil // an error that lasts comes again
	}
	return d, err
}

// skip goes over n bytes without reading them. A length that says more than the file has leads nowhere.
func (r *rest) skip(n int64) bool {
	if n > r.size-r.at {
		r.at = r.size
		return false
	}
	r.at += n
	return true
}

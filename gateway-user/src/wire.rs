//! Bounds-checked reading and writing of network byte order, shared by every codec.

use thiserror::Error;

/// Why bytes were refused. Names the field, so that a counter and a log line can name it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Fewer bytes than the field needs.
    #[error("{field}: truncated")]
    Truncated {
        /// Field that did not fit.
        field: &'static str,
    },
    /// A length field disagrees with the bytes there are.
    #[error("{field}: length {got} is impossible")]
    Length {
        /// Field whose length is wrong.
        field: &'static str,
        /// The length as read.
        got: usize,
    },
    /// A value that the specification forbids.
    #[error("{field}: value {got} is not allowed")]
    Value {
        /// Field whose value is wrong.
        field: &'static str,
        /// The value as read.
        got: u64,
    },
    /// Bytes are left over.
    #[error("{field}: {got} trailing bytes")]
    Trailing {
        /// Structure that should have ended.
        field: &'static str,
        /// How many bytes are left.
        got: usize,
    },
}

/// Result of a decoder.
pub type Decode<T> = Result<T, DecodeError>;

/// A cursor over borrowed bytes; never reads past the end, never panics.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader over all of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// True when everything was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize, field: &'static str) -> Decode<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(DecodeError::Truncated { field })?;
        self.rest = tail;
        Ok(head)
    }

    /// A reader over the next `n` bytes.
    pub fn sub(&mut self, n: usize, field: &'static str) -> Decode<Reader<'a>> {
        Ok(Reader::new(self.take(n, field)?))
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Decode<[u8; N]> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated { field })?;
        self.rest = tail;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self, field: &'static str) -> Decode<u8> {
        Ok(self.array::<1>(field)?[0])
    }

    /// Two bytes, network order.
    pub fn u16(&mut self, field: &'static str) -> Decode<u16> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    /// Four bytes, network order.
    pub fn u32(&mut self, field: &'static str) -> Decode<u32> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    /// Eight bytes, network order.
    pub fn u64(&mut self, field: &'static str) -> Decode<u64> {
        Ok(u64::from_be_bytes(self.array(field)?))
    }

    /// A byte string with a 16-bit length before it, as our own records use; refuses more than `max` bytes.
    pub fn bytes16(&mut self, max: usize, field: &'static str) -> Decode<&'a [u8]> {
        let n = self.u16(field)? as usize;
        if n > max {
            return Err(DecodeError::Length { field, got: n });
        }
        self.take(n, field)
    }

    /// Fails if bytes are left over.
    pub fn finish(self, field: &'static str) -> Decode<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing { field, got: self.rest.len() }) }
    }
}

/// Appends network byte order to a vector.
#[derive(Default, Debug)]
pub struct Writer {
    buf: Vec<u8>,
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// True when nothing was written.
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// Appends one byte.
    pub fn u8(&mut self, v: u8) -> &mut Self {
        self.buf.push(v);
        self
    }

    /// Appends two bytes.
    pub fn u16(&mut self, v: u16) -> &mut Self {
        self.bytes(&v.to_be_bytes())
    }

    /// Appends four bytes.
    pub fn u32(&mut self, v: u32) -> &mut Self {
        self.bytes(&v.to_be_bytes())
    }

    /// Appends eight bytes.
    pub fn u64(&mut self, v: u64) -> &mut Self {
        self.bytes(&v.to_be_bytes())
    }

    /// Appends bytes as they are.
    pub fn bytes(&mut self, v: &[u8]) -> &mut Self {
        self.buf.extend_from_slice(v);
        self
    }

    /// Appends a 16-bit length and the bytes. The caller bounds the length; longer input is cut by a debug assertion.
    pub fn bytes16(&mut self, v: &[u8]) -> &mut Self {
        debug_assert!(v.len() <= u16::MAX as usize);
        self.u16(v.len() as u16).bytes(v)
    }

    /// Writes `v` over the byte at `at`.
    pub fn patch_u8(&mut self, at: usize, v: u8) {
        self.buf[at] = v;
    }

    /// Writes `v` over the two bytes at `at` (a length known only afterwards).
    pub fn patch_u16(&mut self, at: usize, v: u16) {
        self.buf[at..at + 2].copy_from_slice(&v.to_be_bytes());
    }

    /// Writes `v` over the four bytes at `at`.
    pub fn patch_u32(&mut self, at: usize, v: u32) {
        self.buf[at..at + 4].copy_from_slice(&v.to_be_bytes());
    }

    /// The bytes written.
    pub fn as_slice(&self) -> &[u8] {
        &self.buf
    }

    /// The bytes written, by value.
    pub fn into_vec(self) -> Vec<u8> {
        self.buf
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reader_refuses_to_pass_the_end() {
        let mut r = Reader::new(&[1, 2, 3]);
        assert_eq!(r.u16("a"), Ok(0x0102));
        assert_eq!(r.u16("b"), Err(DecodeError::Truncated { field: "b" }));
        assert_eq!(r.u8("c"), Ok(3));
        assert_eq!(r.finish("d"), Ok(()));
    }

    #[test]
    fn a_long_counted_string_is_refused_before_it_is_read() {
        let mut r = Reader::new(&[0xff, 0xff, 0]);
        assert_eq!(r.bytes16(10, "s"), Err(DecodeError::Length { field: "s", got: 65535 }));
    }
}

//! RocksDB's integer and string encodings: little-endian fixed integers, LEB128 varints, length-prefixed bytes.
//!
//! Owns: a cursor over untrusted bytes that can only fail with a typed error naming the offset.
//! Refuses: to allocate. Everything it returns borrows from the input, so no length needs a limit here.

/// A place in the input at which it could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at offset {offset}: {problem}")]
pub struct CodingError {
    /// Offset from the start of the decoder's input.
    pub offset: usize,
    /// What is wrong there.
    pub problem: CodingProblem,
}

/// What can be wrong with an encoded integer or string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodingProblem {
    /// The input ends inside the value.
    #[error("the bytes end inside a value")]
    Truncated,
    /// A varint has more bits than its type.
    #[error("a variable-length integer is too long")]
    Overlong,
}

/// A cursor over encoded bytes.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Decoder<'a> {
    /// A cursor at the start of `input`.
    pub const fn new(input: &'a [u8]) -> Self {
        Self { rest: input, len: input.len() }
    }

    /// Bytes consumed so far.
    pub const fn offset(&self) -> usize {
        // `rest` is always a suffix of the input.
        self.len.saturating_sub(self.rest.len())
    }

    /// Whether everything has been consumed.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What has not been consumed.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn error(&self, problem: CodingProblem) -> CodingError {
        CodingError { offset: self.offset(), problem }
    }

    /// One byte.
    #[inline]
    pub fn byte(&mut self) -> Result<u8, CodingError> {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                Ok(*first)
            }
            None => Err(self.error(CodingProblem::Truncated)),
        }
    }

    /// The next `n` bytes.
    #[inline]
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], CodingError> {
        match self.rest.split_at_checked(n) {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(head)
            }
            None => Err(self.error(CodingProblem::Truncated)),
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodingError> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(*head)
            }
            None => Err(self.error(CodingProblem::Truncated)),
        }
    }

    /// A 16-bit fixed integer.
    #[inline]
    pub fn fixed16(&mut self) -> Result<u16, CodingError> {
        self.array().map(u16::from_le_bytes)
    }

    /// A 32-bit fixed integer.
    #[inline]
    pub fn fixed32(&mut self) -> Result<u32, CodingError> {
        self.array().map(u32::from_le_bytes)
    }

    /// A 64-bit fixed integer.
    #[inline]
    pub fn fixed64(&mut self) -> Result<u64, CodingError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A varint of at most 32 bits. Longer-than-necessary forms are accepted, as RocksDB does; lost bits are not.
    #[inline]
    pub fn varint32(&mut self) -> Result<u32, CodingError> {
        if let Some((&first, rest)) = self.rest.split_first()
            && first < 0x80
        {
            self.rest = rest;
            return Ok(u32::from(first));
        }
        let before = self.clone();
        let value = self.varint64_slow(5)?;
        u32::try_from(value).map_err(|_| before.error(CodingProblem::Overlong))
    }

    /// A varint of at most 64 bits.
    #[inline]
    pub fn varint64(&mut self) -> Result<u64, CodingError> {
        if let Some((&first, rest)) = self.rest.split_first()
            && first < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(first));
        }
        self.varint64_slow(10)
    }

    fn varint64_slow(&mut self, max_bytes: usize) -> Result<u64, CodingError> {
        let mut value = 0u64;
        let mut shift = 0u32;
        for (i, byte) in self.rest.iter().take(max_bytes).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.error(CodingProblem::Overlong));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                // `i` is an index into `rest`.
                self.rest = self.rest.get(i + 1..).unwrap_or_default();
                return Ok(value);
            }
            shift += 7;
        }
        let problem = if self.rest.len() < max_bytes { CodingProblem::Truncated } else { CodingProblem::Overlong };
        Err(self.error(problem))
    }

    /// A varint32 length and that many bytes (RocksDB's `GetLengthPrefixedSlice`).
    #[inline]
    pub fn length_prefixed(&mut self) -> Result<&'a [u8], CodingError> {
        let before = self.clone();
        let len = self.varint32()?;
        let len = usize::try_from(len).map_err(|_| before.error(CodingProblem::Truncated))?;
        self.bytes(len).map_err(|_| before.error(CodingProblem::Truncated))
    }
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, value: impl Into<u64>) {
    let mut value = value.into();
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// Appends a varint32 length and the bytes. Callers encode keys, names and values, which RocksDB keeps below 4 GiB.
pub fn put_length_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    out.extend_from_slice(bytes);
}

/// The number of bytes that [`put_varint`] appends.
pub const fn varint_len(value: u64) -> usize {
    // 1 to 10 bytes of seven bits each.
    (64 - (value | 1).leading_zeros()).div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_round_trip(value: u64, small: u32) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            prop_assert_eq!(bytes.len(), varint_len(value));
            put_varint(&mut bytes, small);
            let mut decoder = Decoder::new(&bytes);
            prop_assert_eq!(decoder.varint64(), Ok(value));
            prop_assert_eq!(decoder.varint32(), Ok(small));
            prop_assert!(decoder.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let mut d = Decoder::new(&bytes);
            while !d.is_empty() {
                let _ = d.clone().varint32();
                let _ = d.clone().varint64();
                let _ = d.clone().length_prefixed();
                let _ = d.clone().fixed64();
                let _ = d.byte();
            }
        }
    }

    #[test]
    fn a_varint_that_loses_bits_is_refused() {
        let overlong = CodingError { offset: 0, problem: CodingProblem::Overlong };
        assert_eq!(Decoder::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).varint32(), Err(overlong));
        assert_eq!(Decoder::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).varint32(), Ok(u32::MAX));
        assert_eq!(Decoder::new(&[0xff; 10]).varint64(), Err(overlong));
        let mut max = [0xff; 10];
        max[9] = 1;
        assert_eq!(Decoder::new(&max).varint64(), Ok(u64::MAX));
        max[9] = 2;
        assert_eq!(Decoder::new(&max).varint64(), Err(overlong));
    }

    #[test]
    fn errors_name_the_offset_of_the_value_that_is_cut_off() {
        let mut d = Decoder::new(&[1, 0x80]);
        assert_eq!(d.byte(), Ok(1));
        assert_eq!(d.varint64(), Err(CodingError { offset: 1, problem: CodingProblem::Truncated }));
        let mut d = Decoder::new(&[3, b'a', b'b']);
        assert_eq!(d.length_prefixed(), Err(CodingError { offset: 0, problem: CodingProblem::Truncated }));
    }
}

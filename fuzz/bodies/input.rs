//! Takes an input apart. Owns: [`Input`], which gives zeros where the bytes have ended, so that every input is complete.

use pitr_archive::{code::Code, error::Error};

/// A cursor over a fuzzer's bytes.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub const fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let (head, rest) = self.0.split_at(N.min(self.0.len()));
        out[..head.len()].copy_from_slice(head);
        self.0 = rest;
        out
    }

    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// A length (u16) and that many bytes, or what is left of them.
    pub fn piece(&mut self) -> &'a [u8] {
        let len = usize::from(self.u16());
        let (piece, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        piece
    }

    pub const fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// The reverse of [`Input::piece`].
pub fn put_piece(out: &mut Vec<u8>, piece: &[u8]) {
    let piece = &piece[..piece.len().min(usize::from(u16::MAX))];
    out.extend_from_slice(&(piece.len() as u16).to_le_bytes());
    out.extend_from_slice(piece);
}

/// Changes one byte of `bytes`, which must not be empty, to another value.
pub fn damage(bytes: &mut [u8], at: usize, xor: u8) {
    let at = at % bytes.len();
    bytes[at] ^= if xor == 0 { 1 } else { xor };
}

/// A refusal must be one of these. Its text is made, too: nothing in it may panic.
#[track_caller]
pub fn refused(error: &Error, allowed: &[Code]) {
    let text = error.to_string();
    assert!(allowed.contains(&error.code()), "an unexpected code: {text}");
    assert!(text.len() < 1 << 20, "an error of {} bytes", text.len());
}

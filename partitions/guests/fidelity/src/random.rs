//! Random patterns, from a seed.

/// A generator of 64-bit numbers (xorshift64*).
pub struct Random(u64);

impl Random {
    /// Any seed will do; equal seeds give equal numbers.
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`.
    pub const fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }

    /// A canonical address for 48-bit paging: bits 63 to 47 are equal.
    pub const fn canonical(&mut self) -> u64 {
        ((self.next() << 16) as i64 >> 16) as u64
    }
}

//! Charts.
use crate::report::Figure;
pub fn draw(_: &[Figure], _: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    Ok(())
}

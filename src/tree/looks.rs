//! For the loom models: looks that are parts of a search, each by itself. A search makes several,
//! and one may cover for another that is too weak.

use super::FrameTree;
use super::search::{Amount, Join};
use crate::frame::NumberRange;
use crate::journal::Writer;
use crate::request::Request;

pub use super::giants::{is_within, may_go_on, worth_a_look};
pub use super::isolate::mark_gone;
pub use super::longest::{
    bound, is_row_wide, longest_from, longest_within, narrow, narrow_to_nothing, prefix, suffix,
};

impl FrameTree<'_> {
    /// Takes a frame; on evidence from the first look on, as after one in vain.
    pub(crate) fn take_one_by_looks(&self, writer: Writer<'_>) -> Option<u64> {
        let search = || self.search_admitted(writer, Amount::Frames(1), Join::Anybody);
        let refill = self.prove_by_looks(writer, search).ok()?;
        Some(refill.cache.into_one().frame.into_number().get())
    }

    /// The same for a run.
    pub(crate) fn take_run_by_looks(
        &self,
        writer: Writer<'_>,
        request: &Request,
    ) -> Option<NumberRange> {
        let search = || self.search_by(writer, &request.rule());
        self.prove_by_looks(writer, search).ok()
    }
}

//! The rule of reading: whether a stored document may be served.
//!
//! Invariant: pure. What it looks at is handed in: one row's columns, and what one snapshot shows as pending. Where
//! something is missing or is not known, the document is not served.
//!
//! Rules: E5, R1, R2, R3, R5.

/// A change that may touch many profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingEpoch {
    pub epoch: Option<i64>,
    /// Row versions of an older xmin have been through a complete pass.
    pub passed_xmin: Option<u64>,
}

/// What is pending, as one snapshot shows it.
#[derive(Default, Debug)]
pub struct Pending {
    pub current: Option<i64>,
    pub epochs: Vec<PendingEpoch>,
    /// There are more than a read should look at: what it does not see may concern any profile.
    pub overflow: bool,
}

/// What the reader's rule looks at in a profile's row.
#[derive(Clone, Debug, Default)]
pub struct CachedRow {
    pub epoch: Option<i64>,
    pub valid_until: Option<i64>,
    pub updated_at: Option<i64>,
    pub xmin: u32,
    /// A pending key names the row.
    pub named: bool,
    pub key: Option<[u8; 16]>,
}

/// Why a stored document is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// `profile_cache.enabled` is off.
    Disabled,
    /// A trigger of ours does not fire, or the attachment has a problem.
    Unhealthy,
    /// This transaction has changed something that it has not computed yet.
    Unsettled,
    /// Not stored, or distrusted.
    Null,
    /// Stamped by another attachment, or under another definition.
    OtherAttachment,
    Expired,
    /// Computed by a transaction that began after this one.
    Future,
    /// A change is pending that may concern it.
    Pending,
}

impl Miss {
    pub fn name(self) -> &'static str {
        match self {
            Miss::Disabled => "disabled",
            Miss::Unhealthy => "unhealthy",
            Miss::Unsettled => "changed in this transaction",
            Miss::Null => "not cached",
            Miss::OtherAttachment => "other attachment",
            Miss::Expired => "expired",
            Miss::Future => "from the future",
            Miss::Pending => "pending",
        }
    }
}

impl Pending {
    /// Whether a stored document may be served, of what is pending here; or why not. `first`: the first epoch that is
    /// trusted, if any. `now`: the reader's, in PostgreSQL's microseconds. `next_xid`: no transaction has that id or a
    /// greater one.
    pub fn judge(
        &self,
        l: &CachedRow,
        first: Option<i64>,
        now: i64,
        next_xid: u64,
    ) -> Result<(), Miss> {
        let Some(stamp) = l.epoch else {
            return Err(Miss::Null);
        };
        let Some(first) = first.filter(|_| !self.overflow) else {
            return Err(Miss::Pending);
        };
        if stamp < first || self.current.is_none_or(|current| stamp > current) {
            return Err(Miss::OtherAttachment);
        }
        if l.valid_until.is_some_and(|until| until <= now) {
            return Err(Miss::Expired);
        }
        if l.updated_at.is_none_or(|at| at > now) {
            return Err(Miss::Future);
        }
        let concerned = |e: &PendingEpoch| match e.epoch {
            None => true,
            Some(epoch) => {
                epoch > stamp && e.passed_xmin.is_none_or(|to| full_xid(l.xmin, next_xid) >= to)
            }
        };
        if l.named || self.epochs.iter().any(concerned) {
            return Err(Miss::Pending);
        }
        Ok(())
    }
}

/// The full transaction id of a row version's xmin: the greatest one below `next` with these low
/// bits. A frozen version's true id may be older still, never newer, so "older than" stays true of
/// it. Ids under 3 are not transactions: counted as the newest.
pub fn full_xid(xmin: u32, next: u64) -> u64 {
    if xmin < 3 {
        return u64::MAX;
    }
    let candidate = (next & !0xffff_ffff) | u64::from(xmin);
    if candidate < next { candidate } else { candidate.saturating_sub(1 << 32) }
}

/// What the reader's rule needs besides the rows, in one place.
pub struct FreshnessRule {
    pub(super) pending: Pending,
    pub(super) first: Option<i64>,
    pub(super) now: i64,
    pub(super) next_xid: u64,
}

impl FreshnessRule {
    pub fn of(&self, l: &CachedRow) -> Result<(), Miss> {
        self.pending.judge(l, self.first, self.now, self.next_xid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: CachedRow = CachedRow {
        epoch: Some(10),
        valid_until: None,
        updated_at: Some(5),
        xmin: 100,
        named: false,
        key: None,
    };

    fn pending(epochs: &[(Option<i64>, Option<u64>)]) -> Pending {
        Pending {
            current: Some(12),
            epochs: epochs
                .iter()
                .map(|&(epoch, passed_xmin)| PendingEpoch { epoch, passed_xmin })
                .collect(),
            ..Pending::default()
        }
    }

    fn judge(p: &Pending, l: &CachedRow) -> Result<(), Miss> {
        p.judge(l, Some(8), 50, 1000)
    }

    #[test]
    fn a_stamp_counts_only_within_the_attachment_s_epochs() {
        let p = pending(&[]);
        assert_eq!(judge(&p, &OK), Ok(()));
        for (epoch, miss) in [
            (None, Miss::Null),
            (Some(7), Miss::OtherAttachment),
            (Some(13), Miss::OtherAttachment),
        ] {
            assert_eq!(judge(&p, &CachedRow { epoch, ..OK }), Err(miss));
        }
        for epoch in [Some(8), Some(12)] {
            assert_eq!(judge(&p, &CachedRow { epoch, ..OK }), Ok(()));
        }
        assert_eq!(judge(&Pending::default(), &OK), Err(Miss::OtherAttachment));
        let rule =
            FreshnessRule { pending: pending(&[]), first: Some(11), now: 50, next_xid: 1000 };
        assert_eq!(rule.of(&OK), Err(Miss::OtherAttachment));
    }

    #[test]
    fn time_is_the_reader_s_now() {
        let p = pending(&[]);
        assert_eq!(judge(&p, &CachedRow { valid_until: Some(50), ..OK }), Err(Miss::Expired));
        assert_eq!(judge(&p, &CachedRow { valid_until: Some(51), ..OK }), Ok(()));
        assert_eq!(judge(&p, &CachedRow { updated_at: Some(51), ..OK }), Err(Miss::Future));
        assert_eq!(judge(&p, &CachedRow { updated_at: Some(50), ..OK }), Ok(()));
    }

    #[test]
    fn a_pending_epoch_concerns_older_stamps_until_a_pass_has_seen_the_row() {
        assert_eq!(judge(&pending(&[(None, None)]), &OK), Err(Miss::Pending));
        assert_eq!(judge(&pending(&[(Some(11), None)]), &OK), Err(Miss::Pending));
        assert_eq!(judge(&pending(&[(Some(10), None)]), &OK), Ok(()));
        assert_eq!(judge(&pending(&[(Some(11), Some(101))]), &OK), Ok(()));
        assert_eq!(judge(&pending(&[(Some(11), Some(100))]), &OK), Err(Miss::Pending));
        assert_eq!(judge(&pending(&[]), &CachedRow { named: true, ..OK }), Err(Miss::Pending));
    }

    #[test]
    fn what_is_not_looked_at_may_concern_anyone() {
        let p = Pending { overflow: true, ..pending(&[]) };
        assert_eq!(judge(&p, &OK), Err(Miss::Pending));
    }

    #[test]
    fn an_xmin_is_widened_to_the_newest_id_it_can_be() {
        assert_eq!(full_xid(100, 1000), 100);
        assert_eq!(full_xid(999, 1000), 999);
        assert_eq!(full_xid(100, (7 << 32) + 1000), (7 << 32) + 100);
        // Its low bits are beyond those of the next id: it is from the epoch before.
        assert_eq!(full_xid(2000, (7 << 32) + 1000), (6 << 32) + 2000);
        assert_eq!(full_xid(1000, (7 << 32) + 1000), (6 << 32) + 1000);
        // Ids of transactions begin at 3.
        assert_eq!(full_xid(2, 1000), u64::MAX);
        assert_eq!(full_xid(3, 1000), 3);
    }
}

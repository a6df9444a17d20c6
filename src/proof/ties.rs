//! How the rows of each table that a view reads are found from a profile's row.
//!
//! Pure. Invariant: a range-table entry is tied only by equalities that a foreign key or a unique index knows, to
//! what is tied already; and only by those that take nothing for equal that differs. Or all of its rows count
//! (`everyone.rs`).

use crate::error::Error;
use crate::proof::{ColumnRef, Equality, ForeignKey, Pairs, Prover, Source, Tie};
use crate::query_tree::{EqualityOp, Oid};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::rc::Rc;

/// A column of one range-table entry and one of another, and the equality of the first that makes them equal.
type Pair<'a> = (i16, i16, &'a Equality);

/// Whether something is tied to nothing but what everyone shows. It would be so itself, were it not for
/// `everyone.rs`, which takes it for a mistake.
pub(super) fn only_to_everyone(tie: &[Tie], ties: &[Vec<Tie>]) -> bool {
    tie.iter().all(|t| match t {
        Tie::To { other, .. } => ties[*other] == [Tie::Everyone],
        other => *other == Tie::Everyone,
    })
}

impl Prover<'_> {
    /// Ties every range-table entry, nearest to the profile first.
    pub(super) fn tie(
        &self,
        root: usize,
        key_column: i16,
    ) -> Result<(Vec<Vec<Tie>>, BTreeSet<usize>), Error> {
        let mut ties: Vec<Vec<Tie>> = vec![vec![]; self.rtes.len()];
        let mut grouped = BTreeSet::new();
        ties[root] = vec![Tie::Profile];
        let place = (root, key_column);
        self.tie_step_by_step(place, &mut ties, &mut grouped);
        // Last of all, since a change there concerns everybody; and then what is tied to that beside something else.
        for rte in self.shown_to_everyone(&ties) {
            ties[rte] = vec![Tie::Everyone];
        }
        self.tie_step_by_step(place, &mut ties, &mut grouped);
        match ties.iter().position(Vec::is_empty) {
            None => Ok((ties, grouped)),
            Some(untied) => Err(self.untied(untied, &ties)),
        }
    }

    /// Ties what can be tied to what is tied already, and to that, and so on.
    fn tie_step_by_step(
        &self,
        (root, key_column): ColumnRef,
        ties: &mut [Vec<Tie>],
        grouped: &mut BTreeSet<usize>,
    ) {
        // Constants come last: a tie to the profile concerns fewer.
        for constants in [false, true] {
            loop {
                let mut found = vec![];
                for rte in 0..ties.len() {
                    if ties[rte].is_empty()
                        && let Some((tie, outside)) = self.ties_of(rte, ties, constants)
                        && !only_to_everyone(&tie, ties)
                    {
                        found.push((rte, tie, outside));
                    }
                }
                if found.is_empty() {
                    break;
                }
                for (rte, tie, outside) in found {
                    let to_key = matches!(&tie[..], [Tie::To { other, columns, .. }]
                        if *other == root && columns.iter().any(|c| c.1 == key_column));
                    if outside && !to_key {
                        grouped.insert(rte);
                    }
                    ties[rte] = tie;
                }
            }
        }
    }

    /// How a range-table entry is tied to what is tied already, the best way first; and whether by a
    /// condition outside of a query that groups its rows.
    fn ties_of(&self, rte: usize, ties: &[Vec<Tie>], constants: bool) -> Option<(Vec<Tie>, bool)> {
        if self.spend(self.equalities[rte].len()) {
            return None;
        }
        let pairs = self.pairs_with_tied(rte, ties)?;
        self.by_keys(rte, ties, &pairs)
            .or_else(|| self.by_values(rte, ties, constants))
            .or_else(|| self.by_alternatives(rte, ties, constants))
    }

    /// A range-table entry's columns that equal columns of what is tied already, by whose. None where that is
    /// too much to look at.
    fn pairs_with_tied(
        &self,
        rte: usize,
        ties: &[Vec<Tie>],
    ) -> Option<BTreeMap<usize, Vec<Pair<'_>>>> {
        let mut pairs: BTreeMap<usize, Vec<Pair>> = BTreeMap::new();
        for e in &self.equalities[rte] {
            let places = self.equal_places(e);
            if self.spend(places.len()) {
                return None;
            }
            for &(other, column) in places.iter() {
                if other != rte && !ties[other].is_empty() {
                    let pair = (e.place.1, column, e);
                    pairs.entry(other).or_default().push(pair);
                }
            }
        }
        Some(pairs)
    }

    /// By whole keys, of one column or several.
    fn by_keys(
        &self,
        rte: usize,
        ties: &[Vec<Tie>],
        pairs: &BTreeMap<usize, Vec<Pair>>,
    ) -> Option<(Vec<Tie>, bool)> {
        let mut best: Option<((bool, u8, bool), Tie, bool)> = None;
        for (other, pairs) in pairs {
            // The same row once more, found by its own key.
            let table = self.rtes[rte].table;
            if table == self.rtes[*other].table
                && let Some(same) = pairs.iter().find(|(x, y, e)| {
                    x == y && self.is_key(table, *x, e.by.1) && self.exact(e.by, &[(table, *x)])
                })
            {
                return Some((ties[*other].clone(), same.2.outside));
            }
            let to_profile = ties[*other] == [Tie::Profile];
            for (rank, columns) in self.tying(rte, *other, pairs) {
                let one_profile = to_profile && self.leads_to_one(*other, rank, &columns);
                // What is computed at once is the best there is, and of that a foreign key to the profile.
                let order = (!one_profile, rank, !to_profile);
                if best.as_ref().is_none_or(|b| order < b.0) {
                    // Where it stands inside as well, that is enough.
                    let outside = columns.iter().any(|c| {
                        let mut said = pairs.iter().filter(|p| (p.0, p.1) == (c.0, c.1));
                        said.all(|p| p.2.outside)
                    });
                    let tie = Tie::To { other: *other, columns, one_profile };
                    best = Some((order, tie, outside));
                }
            }
        }
        best.map(|(_, tie, outside)| (vec![tie], outside))
    }

    /// By one column that is one of several values: columns of what is tied, or (`constants`) constants alone.
    fn by_values(
        &self,
        rte: usize,
        ties: &[Vec<Tie>],
        constants: bool,
    ) -> Option<(Vec<Tie>, bool)> {
        let by = |e: &Equality| Some((self.by_equality(e, ties, constants)?, e.outside));
        self.equalities[rte].iter().find_map(by)
    }

    /// By each of the values that an equality allows.
    pub(super) fn by_equality(
        &self,
        e: &Equality,
        ties: &[Vec<Tie>],
        constants: bool,
    ) -> Option<Vec<Tie>> {
        if self.spend(1 + e.sources.len()) {
            return None;
        }
        let only_constants = e.sources.iter().all(|s| matches!(s, Source::Constant { .. }));
        if only_constants && !constants {
            return None;
        }
        let found = e.sources.iter().map(|s| self.by_source(e, s, ties));
        let mut found = found.collect::<Option<Vec<Tie>>>()?;
        found.dedup();
        (!found.is_empty()).then_some(found)
    }

    /// One of the values that an equality allows, as a tie.
    fn by_source(&self, e: &Equality, source: &Source, ties: &[Vec<Tie>]) -> Option<Tie> {
        let (rte, column) = e.place;
        match source {
            Source::Constant { value, r#type } => {
                let table = self.rtes[rte].table;
                let key =
                    self.is_key(table, column, e.by.1) && self.exact(e.by, &[(table, column)]);
                key.then(|| Tie::Constant { column, value: value.clone(), r#type: *r#type })
            }
            Source::Column((other, theirs)) => {
                if *other == rte || ties[*other].is_empty() {
                    return None;
                }
                let pairs = [(column, *theirs, e)];
                let (rank, columns) = self.tying(rte, *other, &pairs).into_iter().next()?;
                let one_profile =
                    ties[*other] == [Tie::Profile] && self.leads_to_one(*other, rank, &columns);
                Some(Tie::To { other: *other, columns, one_profile })
            }
        }
    }

    /// Whether values of the profile's columns in a tie are those of one profile: what a foreign key refers to is unique,
    /// and what refers to the same row of another table may be.
    fn leads_to_one(&self, profile: usize, rank: u8, columns: &Pairs) -> bool {
        let theirs: Vec<_> = columns.iter().map(|c| (c.1, None)).collect();
        rank == 0 || self.unique(profile, &theirs, None)
    }

    /// Whether a column is unique by itself, by its type's own equality under a collation.
    fn is_key(&self, table: Oid, column: i16, under: Oid) -> bool {
        let own = self.facts.families.get(&(table, column));
        self.facts.unique.iter().any(|u| {
            u.table == table
                && matches!(u.columns[..], [(c, family, collation)]
                    if c == column && own.is_some_and(|own| own.contains(&family))
                        && self.tells_apart(under, collation))
        })
    }

    /// Whether what a unique index under `collation` holds apart is apart under another one, too.
    pub fn tells_apart(&self, under: Oid, collation: Oid) -> bool {
        !self.facts.nondeterministic.contains(&under) || collation == under
    }

    pub fn base(&self, place: ColumnRef) -> (Oid, i16) {
        (self.rtes[place.0].table, place.1)
    }

    /// The places whose value is the one that an equality gives, directly or because they equal one
    /// another.
    fn equal_places(&self, e: &Equality) -> Rc<[ColumnRef]> {
        match self.equal_place(e) {
            Some(place) => self.equal_to(place),
            None => Rc::new([]),
        }
    }

    fn equal_place(&self, e: &Equality) -> Option<ColumnRef> {
        match e.sources[..] {
            [Source::Column(place)] => {
                let exact = self.exact(e.by, &[self.base(e.place), self.base(place)]);
                exact.then_some(place)
            }
            _ => None,
        }
    }

    /// A place, and those that it equals.
    fn equal_to(&self, place: ColumnRef) -> Rc<[ColumnRef]> {
        if let Some(known) = self.equals.borrow().get(&place) {
            return known.clone();
        }
        let (mut found, mut known) = (vec![], HashSet::new());
        let mut next = vec![place];
        while let Some(place) = next.pop() {
            if known.insert(place) {
                found.push(place);
                let theirs = &self.equalities[place.0];
                if self.spend(10 * theirs.len()) {
                    break;
                }
                let theirs = theirs.iter().filter(|e| e.place == place);
                next.extend(theirs.filter_map(|e| self.equal_place(e)));
            }
        }
        let found: Rc<[ColumnRef]> = found.into();
        self.equals.borrow_mut().insert(place, found.clone());
        found
    }

    /// Whether an equality of these columns means what `=` between them means, and neither cast nor
    /// collation takes for equal what differs: routes compare the columns as they are.
    pub fn exact(&self, (operator, collation): EqualityOp, columns: &[(Oid, i16)]) -> bool {
        let families = self.facts.equality.get(&operator);
        let own = |c: &(Oid, i16)| {
            let (own, all) = (self.facts.families.get(c), families);
            own.zip(all).is_some_and(|(own, all)| own.iter().any(|f| all.contains(f)))
        };
        let collations = || columns.iter().filter_map(|c| self.facts.collations.get(c));
        let blurred = |c: &Oid| self.facts.nondeterministic.contains(c);
        columns.iter().all(own)
            && (!collations().chain([&collation]).any(blurred)
                || collations().all(|c| *c == collation))
    }

    /// Whether a foreign key means by equal what its columns' own types do: it goes by the unique index that it
    /// refers to, which may have another operator class, and compares under the referenced column's collation.
    fn sound(&self, fk: &ForeignKey) -> bool {
        fk.columns.iter().all(|(x, y, operator)| {
            let to = (fk.to, *y);
            self.exact((*operator, self.collation(to)), &[(fk.from, *x), to])
        })
    }

    /// A column's own collation; 0: it has none, as most types have.
    pub fn collation(&self, column: (Oid, i16)) -> Oid {
        let own = self.facts.collations.get(&column);
        own.copied().unwrap_or_default()
    }

    /// Column pairs of two range-table entries that are a foreign key (rank 0: from the first, 1: from the
    /// second), or foreign keys of both to the same columns (2).
    fn tying(&self, first: usize, second: usize, pairs: &[Pair]) -> Vec<(u8, Pairs)> {
        if self.spend(pairs.len() * self.facts.foreign_keys.len()) {
            return vec![];
        }
        let (a, b) = (self.rtes[first].table, self.rtes[second].table);
        // By an exact equality, and so by the foreign key's: both are that of the columns' own type.
        let equal = |x: i16, y: i16| {
            pairs.iter().any(|(p, q, e)| (*p, *q) == (x, y) && self.exact(e.by, &[(a, x), (b, y)]))
        };
        let mut found = vec![];
        for fk in self.facts.foreign_keys.iter().filter(|k| self.sound(k)) {
            if fk.from == a && fk.to == b && fk.columns.iter().all(|(x, y, _)| equal(*x, *y)) {
                found.push((0, fk.columns.clone()));
            }
            if fk.from == b && fk.to == a && fk.columns.iter().all(|(y, x, _)| equal(*x, *y)) {
                let columns = fk.columns.iter().map(|(y, x, o)| (*x, *y, *o)).collect();
                found.push((1, columns));
            }
        }
        // Both refer to the same row of some table, which the view need not read.
        let from = |table: Oid| {
            self.facts.foreign_keys.iter().filter(move |k| k.from == table && self.sound(k))
        };
        for mine in from(a) {
            for theirs in
                from(b).filter(|k| k.to == mine.to && k.columns.len() == mine.columns.len())
            {
                let pair = |(x, to, o): &(i16, i16, Oid)| {
                    let other = theirs.columns.iter().find(|c| c.1 == *to)?;
                    equal(*x, other.0).then_some((*x, other.0, *o))
                };
                if let Some(columns) = mine.columns.iter().map(pair).collect::<Option<Pairs>>() {
                    found.push((2, columns));
                }
            }
        }
        found.sort();
        found
    }
}

#[cfg(test)]
mod tests {
    use crate::proof::sample::*;
    use crate::proof::{Facts, ForeignKey, Tie, Unique};
    use crate::query_tree::Expr;
    use std::collections::BTreeSet;

    #[test]
    fn a_member_and_what_it_refers_to_are_tied_step_by_step() {
        let conditions =
            vec![equal(column(0, 2), outer(1, 0, 1)), equal(column(1, 1), column(0, 3))];
        let view = showing(count(&[MEMBER, PLAN], Expr::And(conditions)));
        let Ok(proof) = proven(&view) else { panic!("refused: {}", refused(&view)) };
        let member = Tie::To { other: 0, columns: vec![(2, 1, EQUAL)], one_profile: true };
        let plan = Tie::To { other: 1, columns: vec![(1, 3, EQUAL)], one_profile: false };
        assert_eq!(proof.ties, [vec![Tie::Profile], vec![member], vec![plan]]);
        assert_eq!(proof.rtes[1].columns, BTreeSet::from([2, 3]));
    }

    #[test]
    fn what_need_not_hold_ties_nothing() {
        let tied = || equal(column(0, 2), outer(1, 0, 1));
        // Under OR or NOT, by another operator, by columns that are no foreign key, not at all.
        for condition in [
            Expr::Other(vec![tied(), constant("t")]),
            compare(LESS, column(0, 2), outer(1, 0, 1)),
            equal(column(0, 1), outer(1, 0, 1)),
            equal(column(0, 4), constant("1")),
            constant("t"),
        ] {
            assert_eq!(refused(&showing(count(&[MEMBER], condition))), "untied");
        }
    }

    #[test]
    fn a_foreign_key_by_another_equality_ties_nothing() {
        let by_member = count(&[MEMBER], equal(column(0, 2), outer(1, 0, 1)));
        let siblings = count(&[MEMBER, MEMBER], {
            let of_profile = equal(column(0, 2), outer(1, 0, 1));
            Expr::And(vec![of_profile, equal(column(1, 3), column(0, 3))])
        });
        for (view, key) in [(showing(by_member), 0), (showing(siblings), 1)] {
            let mut facts = with_others();
            assert!(proven_by(&view, &facts).is_ok());
            facts.foreign_keys[key].columns[0].2 = OTHER;
            assert!(proven_by(&view, &facts).is_err());
        }
    }

    #[test]
    fn a_constant_needs_a_unique_column() {
        let view = |number| showing(count(&[PLAN], equal(column(0, number), constant("free"))));
        let free = Tie::Constant { column: 1, value: "free".into(), r#type: 25 };
        assert!(proven(&view(1)).is_ok_and(|p| p.ties[1] == [free]));
        // By another, any row may be it.
        assert!(proven(&view(2)).is_ok_and(|p| p.ties[1] == [Tie::Everyone]));
    }

    #[test]
    fn a_foreign_key_of_two_columns_is_whole_or_nothing() {
        let mut facts = facts();
        facts.foreign_keys[0].columns.push((4, 3, EQUAL));
        let half = || equal(column(0, 2), outer(1, 0, 1));
        let other = || equal(outer(1, 0, 3), column(0, 4));
        let both = showing(count(&[MEMBER], Expr::And(vec![half(), other()])));
        assert!(proven_by(&both, &facts).is_ok());
        let one = showing(count(&[MEMBER], half()));
        assert!(proven_by(&one, &facts).is_err());
    }

    #[test]
    fn what_is_unique_on_the_profile_leads_to_one() {
        // Profile and member refer to the plan, and the view need not read it.
        let siblings = showing(count(&[MEMBER], equal(column(0, 3), outer(1, 0, 3))));
        let mut facts = facts();
        facts.foreign_keys.push(ForeignKey {
            from: PROFILE,
            to: PLAN,
            columns: vec![(3, 1, EQUAL)],
        });
        let ties = |facts: &Facts| proven_by(&siblings, facts).map(|p| p.ties[1].clone());
        let tie = |one_profile| Tie::To { other: 0, columns: vec![(3, 3, EQUAL)], one_profile };
        assert!(ties(&facts).is_ok_and(|t| t == [tie(false)]));
        facts.unique.push(Unique { table: PROFILE, columns: vec![(3, FAMILY, 0), (4, FAMILY, 0)] });
        assert!(ties(&facts).is_ok_and(|t| t == [tie(false)]));
        facts.unique.push(Unique { table: PROFILE, columns: vec![(3, FAMILY, 0)] });
        assert!(ties(&facts).is_ok_and(|t| t == [tie(true)]));
    }
}

//! A view's query, as much of it as the proof looks at.
//!
//! Pure: `pg/parse_tree` makes it from the server's own parse tree. Invariant: every expression and
//! every nested query of the view is in here somewhere, so that whoever walks it all misses no table,
//! no column and no condition; what has no form of its own is [`Expr::Other`] with its parts.

/// An object's number in the system catalogs.
pub type Oid = u32;

/// One SELECT, at any depth.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// The range table: what [`Expr::Column`] and [`Node`] point into.
    pub relations: Vec<Relation>,
    pub with: Vec<With>,
    pub from: Vec<Node>,
    /// WHERE.
    pub filter: Option<Expr>,
    pub targets: Vec<Target>,
    /// HAVING, LIMIT, window frames: expressions that are only walked.
    pub others: Vec<Expr>,
    pub aggregates: bool,
    pub group_by: Vec<Group>,
    /// `DISTINCT [ON]`: the targets that it goes by.
    pub distinct: Vec<Group>,
    pub distinct_on: bool,
    /// What each window is partitioned by.
    pub windows: Vec<Vec<Group>>,
    /// Whether a function in the SELECT list makes several rows of one.
    pub sets: bool,
    /// For each row_number(), the targets that its window is partitioned and ordered by.
    pub numbered: Vec<Vec<u32>>,
    /// The output columns that are a row_number(), with the targets that it is partitioned by.
    pub numbers: Vec<(i16, Vec<u32>)>,
    /// How aggregates sort their rows, of those that show in which order they came.
    pub sorted: Vec<Sorted>,
    pub limit: Limit,
    /// The targets of ORDER BY.
    pub order_by: Vec<u32>,
    /// UNION and the like: the relations that are its arms.
    pub arms: Vec<usize>,
    /// UNION: the equalities by which its columns are compared. None where it is ALL throughout.
    pub union_by: Vec<(i16, EqualityOp)>,
    /// There is INTERSECT or EXCEPT among them: rows of one arm decide about those of another.
    pub intersects: bool,
    /// A shape that is refused wherever it stands.
    pub unsupported: Option<&'static str>,
}

/// The ORDER BY of an aggregate.
#[derive(Clone, Debug, Default)]
pub struct Sorted {
    /// The plain columns that it goes by.
    pub by: Vec<Expr>,
    /// The columns that the aggregate shows, and whether it shows what is more than they.
    pub shown: Vec<Expr>,
    pub more: bool,
}

impl Sorted {
    /// Takes in what is shown.
    pub fn shows(&mut self, expr: &Expr) {
        match expr {
            Expr::Column { .. } => self.shown.push(expr.clone()),
            Expr::Query { .. } | Expr::Computed(_) => self.more = true,
            _ => expr.parts().into_iter().for_each(|part| self.shows(part)),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Limit {
    #[default]
    None,
    /// LIMIT 1: at most one row.
    One,
    Some,
}

#[derive(Clone, Debug)]
pub struct With {
    pub name: String,
    pub query: Query,
    pub recursive: bool,
}

/// An equality's operator and collation.
pub type EqualityOp = (Oid, Oid);

/// A target that rows are told apart by, and the equality that says which of them are the same.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub reference: u32,
    pub by: EqualityOp,
}

/// An output column, or one that only GROUP BY or ORDER BY names.
#[derive(Clone, Debug)]
pub struct Target {
    pub expr: Expr,
    /// By which GROUP BY, DISTINCT and PARTITION BY refer to it; 0: none does.
    pub reference: u32,
    /// Not only there for them.
    pub shown: bool,
}

#[derive(Clone, Debug)]
pub enum Relation {
    Table {
        oid: Oid,
        alias: String,
    },
    /// A subquery in FROM, or a view in its place.
    Subquery(Box<Query>),
    /// A reference to WITH, so many levels up.
    With {
        name: String,
        up: usize,
    },
    /// A join's own columns, as expressions over its sides.
    Join(Vec<Expr>),
    Values(Vec<Vec<Expr>>),
    /// Functions in FROM, side by side. Their rows come from their arguments alone.
    Function(Function),
    /// One row without columns.
    Empty,
    Unsupported {
        what: &'static str,
    },
}

#[derive(Clone, Debug)]
pub struct Function {
    /// The calls, with what they are given.
    pub calls: Vec<Expr>,
    /// Whether there may be several rows.
    pub set: bool,
    /// The column that WITH ORDINALITY adds.
    pub ordinality: Option<i16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
}

/// A part of FROM.
#[derive(Clone, Debug)]
pub enum Node {
    Relation(usize),
    Join { kind: JoinKind, sides: Box<[Node; 2]>, on: Option<Expr> },
}

#[derive(Clone, Debug)]
pub enum Expr {
    /// Column `number` (0: the whole row, below: a system column) of a relation `up` queries out.
    Column {
        up: usize,
        relation: usize,
        number: i16,
    },
    /// NULL has no text.
    Constant {
        r#type: Oid,
        text: Option<String>,
    },
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Operator(Box<Operator>),
    /// What a condition says of one value.
    Test {
        is: Test,
        of: Box<Expr>,
    },
    /// COALESCE, CASE, NULLIF, GREATEST or LEAST: one of the results, or NULL; what chooses is looked at beside.
    Either {
        results: Vec<Expr>,
        beside: Vec<Expr>,
    },
    /// A subquery in an expression: its one `value`, or EXISTS and the like. With `any`:
    /// `left operator ANY (query)`, for each of the query's columns.
    Query {
        query: Box<Query>,
        value: bool,
        any: Vec<Any>,
        beside: Vec<Expr>,
    },
    /// An aggregate or a window function: another value for each group or row.
    Computed(Vec<Expr>),
    Other(Vec<Expr>),
}

/// What holds where the test does. As a value it may differ: NOT of NULL is NULL, IS FALSE of it false.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    True,
    False,
    Null,
    NotNull,
}

/// What is beyond these is refused: reading and proving a view takes time, memory and stack, and a view of a
/// few lines can say a lot (a WITH query counts as often as it is used).
pub mod bounds {
    /// Range-table entries of tables: the proof's work grows with their cube.
    pub const TABLES: usize = 200;
    pub const MANY_TABLES: &str = "more than 200 occurrences of tables";
    /// Queries, each in its place, and what stands in their FROM.
    pub const QUERIES: usize = 2000;
    pub const MANY_QUERIES: &str = "more than 2000 subqueries, joins and uses of WITH";
    /// Queries one inside of the other.
    pub const LEVELS: usize = 100;
    pub const MANY_LEVELS: &str = "subqueries that are nested more than 100 deep";
    /// Expressions one inside of the other, and in all.
    pub const DEPTH: usize = 1000;
    pub const DEEP: &str = "an expression that is nested more than 1000 deep";
    pub const EXPRESSIONS: usize = 100_000;
    pub const MANY_EXPRESSIONS: &str = "more than 100000 expressions";
    /// What the proof looks at, one after the other: less than a second.
    pub const STEPS: usize = if cfg!(test) { 2_000_000 } else { 20_000_000 };
    pub const MANY_STEPS: &str = "so many ways from table to table that a proof takes too long";
    /// Ways from the tables to the profile.
    pub const ROUTES: usize = 1000;
    pub const MANY_ROUTES: &str =
        "more than 1000 ways from the tables' rows to the profiles that show them";
    pub const ALL: [&str; 7] =
        [MANY_TABLES, MANY_QUERIES, MANY_LEVELS, DEEP, MANY_EXPRESSIONS, MANY_STEPS, MANY_ROUTES];
}

/// `left operator right`; with several on the right, `left operator ANY (ARRAY[…])`.
#[derive(Clone, Debug)]
pub struct Operator {
    pub oid: Oid,
    pub collation: Oid,
    pub left: Expr,
    pub right: Vec<Expr>,
}

#[derive(Clone, Debug)]
pub struct Any {
    /// Of the query's output columns.
    pub number: i16,
    pub operator: Oid,
    pub collation: Oid,
    pub left: Expr,
}

impl Expr {
    /// Its direct parts, but for a nested query.
    pub fn parts(&self) -> Vec<&Expr> {
        match self {
            Expr::Column { .. } | Expr::Constant { .. } => vec![],
            Expr::And(parts) | Expr::Or(parts) | Expr::Computed(parts) | Expr::Other(parts) => {
                parts.iter().collect()
            }
            Expr::Test { of, .. } => vec![of],
            Expr::Operator(o) => std::iter::once(&o.left).chain(&o.right).collect(),
            Expr::Either { results, beside } => results.iter().chain(beside).collect(),
            Expr::Query { any, beside, .. } => any.iter().map(|a| &a.left).chain(beside).collect(),
        }
    }

    /// Whether it has a column of the query that it stands in.
    pub fn is_of_this_query(&self) -> bool {
        matches!(self, Expr::Column { up: 0, .. })
            || self.parts().into_iter().any(Expr::is_of_this_query)
    }

    /// The conditions that all must hold for this one to hold.
    pub fn conjuncts(&self) -> Vec<&Expr> {
        match self {
            Expr::And(parts) => parts.iter().flat_map(Expr::conjuncts).collect(),
            one => vec![one],
        }
    }
}

impl Target {
    /// Whether this reference is to it.
    pub fn is(&self, reference: u32) -> bool {
        self.reference != 0 && self.reference == reference
    }
}

impl Node {
    /// The relations in it.
    pub fn relations(&self) -> Vec<usize> {
        fn add(node: &Node, found: &mut Vec<usize>) {
            match node {
                Node::Relation(r) => found.push(*r),
                Node::Join { sides, .. } => sides.iter().for_each(|side| add(side, found)),
            }
        }
        let mut found = vec![];
        add(self, &mut found);
        found
    }
}

/// A condition of FROM or WHERE, and the relations whose rows it may leave out: all below it, but of
/// an outer join's condition only those that may be missing.
pub struct Condition<'a> {
    pub expr: &'a Expr,
    pub over: Vec<usize>,
}

impl Query {
    /// The tables in it, at any depth.
    pub fn tables(&self) -> std::collections::BTreeSet<Oid> {
        let mut found = std::collections::BTreeSet::new();
        for relation in &self.relations {
            match relation {
                Relation::Table { oid, .. } => {
                    found.insert(*oid);
                }
                Relation::Subquery(query) => found.extend(query.tables()),
                _ => {}
            }
        }
        for with in &self.with {
            found.extend(with.query.tables());
        }
        let mut left = self.expressions();
        while let Some(expr) = left.pop() {
            if let Expr::Query { query, .. } = expr {
                found.extend(query.tables());
            }
            left.extend(expr.parts());
        }
        found
    }

    pub fn grouped(&self) -> bool {
        self.aggregates || !self.group_by.is_empty()
    }

    /// Every top-level condition.
    pub fn conditions(&self) -> Vec<Condition<'_>> {
        fn walk<'a>(node: &'a Node, found: &mut Vec<Condition<'a>>) {
            let Node::Join { kind, sides, on } = node else {
                return;
            };
            sides.iter().for_each(|side| walk(side, found));
            let over = match kind {
                JoinKind::Inner => node.relations(),
                JoinKind::Left => sides[1].relations(),
                JoinKind::Right => sides[0].relations(),
                JoinKind::Full => vec![],
            };
            found.extend(
                on.iter()
                    .flat_map(Expr::conjuncts)
                    .map(|expr| Condition { expr, over: over.clone() }),
            );
        }
        let mut found = vec![];
        self.from.iter().for_each(|node| walk(node, &mut found));
        let over: Vec<usize> = self.from.iter().flat_map(Node::relations).collect();
        found.extend(
            self.filter
                .iter()
                .flat_map(Expr::conjuncts)
                .map(|expr| Condition { expr, over: over.clone() }),
        );
        found
    }

    /// Whether a condition on output column `number` (from 1) can as well be put below everything
    /// that this query does with its rows: no row that it leaves out has a part in one that it does not.
    pub fn passes(&self, number: i16) -> bool {
        let Some(target) = self.target(number) else {
            return false;
        };
        let by = |groups: &[Group]| groups.iter().any(|g| target.is(g.reference));
        self.limit == Limit::None
            && !self.intersects
            && self.windows.iter().all(|w| by(w))
            && (!self.distinct_on || by(&self.distinct))
    }

    /// The equalities by which this query takes values of output column `number` for the same.
    pub fn merged_by(&self, number: i16) -> Vec<EqualityOp> {
        let groups = [&self.group_by, &self.distinct];
        let groups = groups.into_iter().chain(&self.windows).flatten();
        let target = self.target(number);
        groups
            .filter(|g| target.is_some_and(|t| t.is(g.reference)))
            .map(|g| g.by)
            .chain(self.union_by.iter().filter(|u| u.0 == number).map(|u| u.1))
            .collect()
    }

    pub fn target(&self, number: i16) -> Option<&Target> {
        self.targets.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    /// All expressions of this level, but for the columns that a join merely has.
    pub fn expressions(&self) -> Vec<&Expr> {
        fn on<'a>(node: &'a Node, found: &mut Vec<&'a Expr>) {
            if let Node::Join { sides, on: condition, .. } = node {
                sides.iter().for_each(|side| on(side, found));
                found.extend(condition);
            }
        }
        let mut found = vec![];
        self.from.iter().for_each(|node| on(node, &mut found));
        found.extend(&self.filter);
        found.extend(self.targets.iter().map(|t| &t.expr));
        found.extend(&self.others);
        for relation in &self.relations {
            match relation {
                Relation::Values(rows) => found.extend(rows.iter().flatten()),
                Relation::Function(function) => found.extend(&function.calls),
                _ => {}
            }
        }
        found
    }
}

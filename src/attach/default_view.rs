//! The document view that attach() writes for the conventional tables.
//!
//! Pure: it is told which tables and columns exist and returns SQL. Invariant: the generated view has
//! exactly one row for each profile, reads other tables by their foreign keys only, and changes by
//! itself only at `valid_until`.

use crate::definition::{
    COLUMNS, collate, qualified, quote_identifier as quote, quote_literal as literal,
};

/// A column as the generator needs it.
#[derive(Clone, Debug)]
pub struct TableColumn {
    pub name: String,
    /// `pg_type.typname` of the base type.
    pub r#type: String,
    /// Part of the primary key.
    pub primary: bool,
    /// Of a collatable type.
    pub collatable: bool,
}

/// A conventional table as it was found.
#[derive(Clone, Debug)]
pub struct Found {
    pub schema: String,
    pub name: String,
    pub columns: Vec<TableColumn>,
}

impl Found {
    pub fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|c| c.name == column)
    }
    pub fn column(&self, column: &str) -> Option<&TableColumn> {
        self.columns.iter().find(|c| c.name == column)
    }
    fn sql(&self) -> String {
        qualified(&self.schema, &self.name)
    }
}

/// One column's foreign key: that column, and the one that it references.
#[derive(Clone, Debug)]
pub struct TableKey {
    pub column: String,
    pub references: String,
    /// Its equality as SQL writes it between the referenced and the referencing column.
    pub equals: String,
    /// The collation to compare them under where they have different ones, that of the column which is looked for.
    pub collation: String,
}

/// The conventional tables that are there, with the foreign keys that tie them.
#[derive(Clone, Debug)]
pub struct Tables {
    pub profile: Found,
    pub key: String,
    pub exclude: Vec<String>,
    pub subscription: Option<(Found, TableKey)>,
    pub plan: Option<(Found, TableKey)>,
    pub user_role: Option<(Found, TableKey)>,
    pub role: Option<(Found, TableKey)>,
}

/// A generated view's query, and the columns it left out because of their names.
pub struct View {
    pub query: String,
    pub secrets: Vec<String>,
    /// Columns left out because what they print changes with other objects' names.
    pub references: Vec<String>,
}

/// Columns whose names say that they hold a secret.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    name.starts_with("password")
        || ["_secret", "_token", "_hash"].iter().any(|end| name.ends_with(end))
}

/// Types (and their arrays) that print the names of other objects: renaming one would change the
/// document, and nothing of what it depends on.
fn is_reference(r#type: &str) -> bool {
    let element = r#type.trim_start_matches('_');
    element == "aclitem"
        || [
            "class",
            "collation",
            "config",
            "dictionary",
            "namespace",
            "oper",
            "operator",
            "proc",
            "procedure",
            "role",
            "type",
        ]
        .iter()
        .any(|kind| element.strip_prefix("reg") == Some(kind))
}

/// jsonb_build_object takes at most 100 arguments (FUNC_MAX_ARGS); longer lists are concatenated.
const PAIRS: usize = 50;

fn object(pairs: &[(String, String)]) -> String {
    if pairs.is_empty() {
        return "'{}'::jsonb".into();
    }
    pairs
        .chunks(PAIRS)
        .map(|chunk| {
            let args: Vec<String> =
                chunk.iter().map(|(k, v)| format!("{}, {v}", literal(k))).collect();
            format!("jsonb_build_object({})", args.join(", "))
        })
        .collect::<Vec<_>>()
        .join(" || ")
}

/// A column's value as the serializer prints it.
fn value(alias: &str, c: &TableColumn) -> String {
    let column = format!("{alias}.{}", quote(&c.name));
    match c.r#type.as_str() {
        "timestamptz" => format!("profile_cache.iso8601({column})"),
        // A naive datetime: the same digits without the zone.
        "timestamp" => format!("rtrim(profile_cache.iso8601(timezone('UTC', {column})), 'Z')"),
        _ => column,
    }
}

/// The view's query.
pub fn view(t: &Tables) -> View {
    let mut secrets = vec![];
    let mut references = vec![];
    let mut pairs: Vec<(String, String)> = vec![];
    for c in &t.profile.columns {
        let ours = COLUMNS.iter().any(|(name, _)| *name == c.name);
        let hidden_key = c.primary && c.name != t.key;
        if ours || hidden_key || t.exclude.contains(&c.name) {
            continue;
        }
        if is_secret(&c.name) {
            secrets.push(c.name.clone());
        } else if is_reference(&c.r#type) {
            references.push(c.name.clone());
        } else {
            pairs.push((c.name.clone(), value("p", c)));
        }
    }
    let mut from = format!("{} AS p", t.profile.sql());
    let mut valid_until = "NULL::timestamptz".to_owned();
    if let Some((subscription, fk)) = &t.subscription {
        from.push_str(&joins(t, subscription, fk));
        pairs.extend(subscription_pairs(t));
        if subscription.has("current_period_end") {
            valid_until = "active.until::timestamptz".into();
        }
    }
    if let (Some((user_role, to_profile)), Some((role, to_role))) = (&t.user_role, &t.role) {
        let by_name =
            if role.column("name").is_some_and(|c| c.collatable) { " COLLATE \"C\"" } else { "" };
        let mut shown = vec![("name".to_owned(), "r.name".to_owned())];
        if role.has("permissions") {
            shown.push(("permissions".into(), "r.permissions".into()));
        }
        from.push_str(&format!(
            "\n  CROSS JOIN LATERAL (\n    SELECT coalesce(jsonb_agg({object} ORDER BY r.name{by_name}, r.{role_key}), '[]') AS roles\n    \
             FROM {user_role} AS ur JOIN {role} AS r ON r.{role_key} {role_equals} ur.{to_role}{role_collate}\n    \
             WHERE p.{profile_key} {profile_equals} ur.{to_profile}{profile_collate}) AS role_list",
            role_equals = to_role.equals,
            profile_equals = to_profile.equals,
            role_collate = collate(&to_role.collation),
            profile_collate = collate(&to_profile.collation),
            object = object(&shown),
            role_key = quote(&to_role.references),
            user_role = user_role.sql(),
            role = role.sql(),
            to_role = quote(&to_role.column),
            to_profile = quote(&to_profile.column),
            profile_key = quote(&to_profile.references),
        ));
        pairs.push(("roles".into(), "role_list.roles".into()));
    }
    let query = format!(
        "SELECT p.{key},\n  {object} AS document,\n  {valid_until} AS valid_until\nFROM {from}",
        key = quote(&t.key),
        object = object(&pairs),
    );
    View { query, secrets, references }
}

/// The joins that find the active subscription, its plan, and the free plan.
fn joins(t: &Tables, s: &Found, fk: &TableKey) -> String {
    let period = s.has("current_period_end");
    let mine = format!(
        "p.{} {} s.{}{}",
        quote(&fk.references),
        fk.equals,
        quote(&fk.column),
        collate(&fk.collation)
    );
    let active = "s.status::text IN ('active', 'trialing')";
    let running = if period {
        " AND (s.current_period_end IS NULL OR s.current_period_end > now())"
    } else {
        ""
    };
    let last = if period { "s.current_period_end DESC NULLS FIRST, " } else { "" };
    let until = if period { ", s.current_period_end AS until" } else { "" };
    // The order decides between several active subscriptions; it ends with everything shown. The one that
    // ends last is shown, so that its end is the next moment at which another would be.
    let mut sql = format!(
        "\n  LEFT JOIN LATERAL (\n    SELECT s.plan_id, s.status::text AS status{until} FROM {table} AS s\n    \
         WHERE {mine} AND {active}{running}\n    \
         ORDER BY {last}s.plan_id, s.status::text COLLATE \"C\" LIMIT 1) AS active ON true",
        table = s.sql(),
    );
    if let Some((plan, to_plan)) = &t.plan {
        let key = quote(&to_plan.references);
        sql.push_str(&format!(
            "\n  LEFT JOIN {} AS plan ON plan.{key} {} active.plan_id{}",
            plan.sql(),
            to_plan.equals,
            collate(&to_plan.collation)
        ));
        if has_free_plan(plan, to_plan) {
            sql.push_str(&format!(
                "\n  LEFT JOIN {} AS free ON free.{key} {} 'free'",
                plan.sql(),
                to_plan.equals
            ));
        }
    }
    sql
}

/// Only a plan with a textual id can be the one called `free`.
fn has_free_plan(plan: &Found, to_plan: &TableKey) -> bool {
    plan.has("ai_daily_limit")
        && plan
            .column(&to_plan.references)
            .is_some_and(|c| matches!(c.r#type.as_str(), "text" | "varchar" | "bpchar" | "citext"))
}

fn subscription_pairs(t: &Tables) -> Vec<(String, String)> {
    let or = |shown: &str, otherwise: &str| {
        format!("CASE WHEN active.status IS NULL THEN {otherwise} ELSE {shown} END")
    };
    let plan_id = or("to_jsonb(active.plan_id)", "'\"free\"'::jsonb");
    let status = or("active.status", "'free'");
    let mut pairs = vec![
        ("subscription_plan".to_owned(), plan_id.clone()),
        ("subscription_status".into(), status.clone()),
    ];
    let mut data = vec![("plan".to_owned(), plan_id), ("status".into(), status)];
    if let Some((plan, to_plan)) = &t.plan {
        if plan.has("display_name") {
            let name = or("plan.display_name", "'Free Plan'");
            pairs.push(("subscription_display_name".into(), name.clone()));
            data.push(("display_name".into(), name));
        }
        if plan.has("ai_daily_limit") {
            let free = if has_free_plan(plan, to_plan) { "free.ai_daily_limit" } else { "NULL" };
            pairs.push(("ai_daily_limit".into(), or("plan.ai_daily_limit", free)));
        }
        if plan.has("features") {
            let features = "CASE WHEN active.status IS NULL OR plan.features IS NULL THEN '{}'::jsonb ELSE to_jsonb(plan.features) END";
            data.push(("features".into(), features.into()));
        }
    }
    pairs.push(("subscription_data".into(), object(&data)));
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, r#type: &str) -> TableColumn {
        TableColumn {
            name: name.into(),
            r#type: r#type.into(),
            primary: name == "id",
            collatable: r#type == "text",
        }
    }

    fn profile(columns: &[(&str, &str)]) -> Tables {
        Tables {
            profile: Found {
                schema: "public".into(),
                name: "user_profile".into(),
                columns: columns.iter().map(|(n, t)| column(n, t)).collect(),
            },
            key: "uid".into(),
            exclude: vec!["hidden".into()],
            subscription: None,
            plan: None,
            user_role: None,
            role: None,
        }
    }

    #[test]
    fn secrets_are_told_by_their_names() {
        for name in ["password", "password_changed", "api_secret", "Refresh_Token", "x_hash"] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["secretary", "token_count", "hash", "email", "user_password"] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn what_prints_other_names_is_told_by_its_type() {
        for r#type in ["regclass", "_regrole", "aclitem", "regproc"] {
            assert!(is_reference(r#type), "{}", r#type);
        }
        for r#type in ["text", "regular", "_text", "uuid", "reg"] {
            assert!(!is_reference(r#type), "{}", r#type);
        }
    }

    #[test]
    fn left_out_are_primary_key_cache_columns_excluded_and_secrets() {
        let v = view(&profile(&[
            ("id", "int8"),
            ("uid", "uuid"),
            ("email", "text"),
            ("hidden", "text"),
            ("api_token", "text"),
            ("cached_profile", "jsonb"),
            ("at", "timestamptz"),
        ]));
        assert_eq!(v.secrets, ["api_token"]);
        assert!(v.query.contains(
            "jsonb_build_object('uid', p.\"uid\", 'email', p.\"email\", 'at', profile_cache.iso8601(p.\"at\"))"
        ));
    }

    #[test]
    fn a_key_that_is_the_primary_key_is_shown() {
        let mut t = profile(&[("uid", "uuid")]);
        t.profile.columns[0].primary = true;
        assert!(view(&t).query.contains("'uid', p.\"uid\""));
    }

    #[test]
    fn more_columns_than_one_call_takes_are_concatenated() {
        let names: Vec<String> = (0..120).map(|i| format!("c{i}")).collect();
        let columns: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), "text")).collect();
        assert_eq!(view(&profile(&columns)).query.matches("jsonb_build_object(").count(), 3);
    }
}

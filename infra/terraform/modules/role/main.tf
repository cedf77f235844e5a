# A role of one program, with exactly what it is given here. Rights on the table name the items' partitions, rights on the
# bucket the objects' prefixes.

locals {
  table_statements = [for right in var.table_rights : {
    Effect   = "Allow"
    Action   = [for action in right.actions : "dynamodb:${action}"]
    Resource = [var.table.arn]
    Condition = {
      "ForAllValues:StringLike" = { "dynamodb:LeadingKeys" = right.partitions }
      # Without keys the condition above would hold of anything.
      Null = { "dynamodb:LeadingKeys" = "false" }
    }
  }]
  index_statements = length(var.indexes) == 0 ? [] : [{
    Effect   = "Allow"
    Action   = ["dynamodb:Query"]
    Resource = [for index in var.indexes : "${var.table.arn}/index/${index}"]
  }]
  object_statements = [for right in var.object_rights : {
    Effect   = "Allow"
    Action   = [for action in right.actions : "s3:${action}"]
    Resource = [for prefix in right.prefixes : "${var.bucket.arn}/${prefix}*"]
  }]
  # Who may not list a bucket is told of an object that does not exist that it is forbidden, not that it is not there. The
  # condition on the prefix cannot be used: a read of an object has none.
  missing_statements = var.learns_of_missing_objects ? [{
    Effect   = "Allow"
    Action   = ["s3:ListBucket"]
    Resource = [var.bucket.arn]
  }] : []
  key_statements = var.kms_key_arn == null ? [] : [{
    Effect   = "Allow"
    Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
    Resource = [var.kms_key_arn]
  }]
  statements = concat(
    local.table_statements, local.index_statements, local.object_statements, local.missing_statements, local.key_statements,
    [for statement in var.statements : { for name, value in statement : name => value if value != null }],
  )
}

resource "aws_iam_role" "this" {
  name        = var.name
  description = var.description
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = var.service } }]
  })
}

resource "aws_iam_role_policy" "this" {
  name   = "exactly"
  role   = aws_iam_role.this.id
  policy = jsonencode({ Version = "2012-10-17", Statement = local.statements })
}

# The six Lambdas, of four packages: one binary tells by the shape of an event what it is asked.

locals {
  defaults = {
    submit   = { package = "sheaf-submit", memory_mb = 1024, timeout_s = 29 }
    upload   = { package = "sheaf-submit", memory_mb = 1024, timeout_s = var.timeouts.upload }
    dispatch = { package = "sheaf-dispatch", memory_mb = 1769, timeout_s = var.timeouts.dispatch } # One whole core.
    result   = { package = "sheaf-result", memory_mb = 512, timeout_s = 60 }
    read     = { package = "sheaf-result", memory_mb = 1024, timeout_s = 29 }
    # Sweeps and scales every 15 s within its minute while jobs are alive; the rest is for ending the last round. Two at once do no
    # harm.
    sweep = { package = "sheaf-sweep", memory_mb = 256, timeout_s = 75 }
  }
  lambdas = { for name, default in local.defaults : name => {
    package              = default.package
    memory_mb            = coalesce(try(var.settings[name].memory_mb, null), default.memory_mb)
    timeout_s            = coalesce(try(var.settings[name].timeout_s, null), default.timeout_s)
    reserved_concurrency = try(var.settings[name].reserved_concurrency, null)
  } }
}

resource "aws_cloudwatch_log_group" "this" {
  #checkov:skip=CKV_AWS_158:Logs hold no payloads and no credentials; CloudWatch encrypts them with a key of its own
  #checkov:skip=CKV_AWS_338:How long logs are worth their price is the customer's to say: log_retention_days
  for_each = local.lambdas

  name              = "/aws/lambda/${var.grid}-${each.key}"
  retention_in_days = var.log_retention_days
}

resource "aws_lambda_function" "this" {
  #checkov:skip=CKV_AWS_50:X-Ray is turned on by the variable xray
  #checkov:skip=CKV_AWS_115:Reserved concurrency is taken from the account's, which may have ten; functions sets it
  #checkov:skip=CKV_AWS_116:Nothing invokes them asynchronously but the schedule of the sweeper, which comes again
  #checkov:skip=CKV_AWS_117:They talk to AWS's own endpoints only; in a VPC that would cost a NAT or endpoints by the hour
  #checkov:skip=CKV_AWS_173:Their environment holds names, no secrets
  #checkov:skip=CKV_AWS_272:Packages are built by whoever deploys them, from the same tree; there is no one else to sign
  for_each = local.lambdas

  function_name                  = "${var.grid}-${each.key}"
  description                    = local.rights[each.key].description
  role                           = module.role[each.key].arn
  package_type                   = "Zip"
  filename                       = "${var.packages}/${each.value.package}.zip"
  source_code_hash               = try(filebase64sha256("${var.packages}/${each.value.package}.zip"), "")
  handler                        = "bootstrap"
  runtime                        = "provided.al2023"
  architectures                  = [var.architecture]
  memory_size                    = each.value.memory_mb
  timeout                        = each.value.timeout_s
  reserved_concurrent_executions = each.value.reserved_concurrency

  environment {
    variables = merge(var.environment, each.key == "sweep" && var.capacity != null ? { SHEAF_CAPACITY = var.capacity.told } : {})
  }

  tracing_config {
    mode = var.xray ? "Active" : "PassThrough"
  }

  logging_config {
    log_format = "Text" # The programs write JSON themselves.
    log_group  = aws_cloudwatch_log_group.this[each.key].name
  }

  lifecycle {
    precondition {
      condition     = fileexists("${var.packages}/${each.value.package}.zip")
      error_message = "There is no ${var.packages}/${each.value.package}.zip: run `cargo xtask package`."
    }
  }
}

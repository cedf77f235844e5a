output "api" {
  description = "URL of the API: SHEAF_GRID of clients, who sign their requests."
  value       = module.api.url
}

output "bucket" {
  description = "The bucket."
  value       = module.data.bucket.name
}

output "table" {
  description = "The table. With rights of its own a client uses SHEAF_GRID=aws:NAME."
  value       = module.data.table.name
}

output "queues" {
  description = "The queues' URLs, by lane and priority; and those of uploads and of dead letters."
  value = merge(
    { for name, queue in module.data.lanes : name => queue.url },
    { uploads = module.data.uploads.url, dead = module.data.dead.url, uploads-dead = module.data.uploads_dead.url },
  )
}

output "inbox" {
  description = "Where files are uploaded to."
  value       = "s3://${module.data.bucket.name}/inbox/"
}

output "outbox" {
  description = "Where their results appear."
  value       = "s3://${module.data.bucket.name}/outbox/"
}

output "policies" {
  description = "Managed policies to attach to people and programs: client (the API), direct (without the API) and files (inbox and outbox)."
  value       = module.access.policies
}

output "cluster" {
  description = "The cluster of the containers, if there are any."
  value       = one(module.workers[*].cluster)
}

// Starts one Elasticsearch 9 node, without the launcher and the entitlement agent of a distribution.
import java.nio.file.Path
import org.elasticsearch.common.logging.LogConfigurator
import org.elasticsearch.common.settings.Settings
import org.elasticsearch.node.InternalSettingsPreparer
import org.elasticsearch.node.Node
import org.elasticsearch.plugins.PluginsLoader

def home = Path.of(args[0])
def settings = Settings.builder().put("path.home", home.toString()).build()
def environment = InternalSettingsPreparer.prepareEnvironment(settings, [:], home.resolve("config"), { "local" })
LogConfigurator.setNodeName("local")
LogConfigurator.configure(environment, true)
def loader = PluginsLoader.createPluginsLoader(
    PluginsLoader.loadModulesBundles(environment.modulesDir()),
    PluginsLoader.loadPluginsBundles(environment.pluginsDir()),
    [:], false)
def node = new Node(environment, loader)
node.start()
Runtime.runtime.addShutdownHook(new Thread({ node.close() }))
Thread.currentThread().join()
